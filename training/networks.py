"""The parts of `kontext-mini`: the real classes, a few million parameters, tokenizers made from the phrasings."""

from collections.abc import Iterator

from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from training.operations import EVERYTHING, SUBJECTS

LATENT_CHANNELS = 32
"""As in FLUX.2. With 16, as in FLUX.1, the best linear map of eight by eight pixels keeps 22 to 25 dB of photographs this
small; with 32 it keeps 26 to 28."""
TEXT_WIDTH = 192
POOLED_WIDTH = 128
TOKENS = 32
"""Tokens of the instruction that are read."""


def autoencoder() -> AutoencoderKL:
    """Eight pixels to one latent, as in FLUX."""
    return AutoencoderKL(
        sample_size=128,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 128, 192),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        # Convolutions alone: what is learned on small windows holds for whole pictures.
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def transformer() -> FluxTransformer2DModel:
    """Double and single blocks over text, noisy latents and the reference's latents."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=LATENT_CHANNELS * 4,
        num_layers=3,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


def sentences() -> Iterator[str]:
    """Every phrasing that may be trained on."""
    for operation in EVERYTHING:
        for template in operation.phrasings:
            for subject in SUBJECTS if "{it}" in template else ("it",):
                sentence = template.format(it=subject, much="slightly ")
                yield sentence
                yield sentence[0].upper() + sentence[1:] + "."


def clip_tokenizer() -> CLIPTokenizer:
    """One token per byte, and one per byte at the end of a word; no merges."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|startoftext|>", "<|endoftext|>", *symbols, *(symbol + "</w>" for symbol in symbols)]
    return CLIPTokenizer(vocab={name: number for number, name in enumerate(names)}, merges=[], model_max_length=77)


def t5_tokenizer() -> T5TokenizerFast:
    """Pieces of words learned from the phrasings, and every printable character."""
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    printable = [chr(code) for code in range(33, 127)]
    learner.train_from_iterator(
        sentences(),
        trainers.UnigramTrainer(
            vocab_size=600,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",  # noqa: S106
            initial_alphabet=printable,
            show_progress=False,
        ),
    )
    learned = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    # Longer pieces win; the exact scores do not matter, and this way the vocabulary is the same on every machine.
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece, -10.0) for piece in [*printable, "▁"]]
    known = {piece for piece, _ in pieces}
    pieces += [(piece, -10.0 - 1 / len(piece)) for piece in learned if piece not in known]
    pieces += [(f"<extra_id_{n}>", 0.0) for n in reversed(range(100))]
    return T5TokenizerFast(vocab=pieces, model_max_length=TOKENS)


def clip() -> CLIPTextModel:
    """Gives the pooled vector that modulates every block."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer()),
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            hidden_size=POOLED_WIDTH,
            intermediate_size=256,
            num_attention_heads=4,
            num_hidden_layers=2,
            projection_dim=POOLED_WIDTH,
            max_position_embeddings=77,
            hidden_act="gelu",
        )
    )


def t5() -> T5EncoderModel:
    """Gives one vector per token of the instruction."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()),
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=512,
            num_layers=3,
            num_heads=6,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            tie_word_embeddings=False,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Rectified flow with the shift by sequence length that Kontext has."""
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
