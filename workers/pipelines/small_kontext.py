"""Builds a Kontext pipeline of the real classes with a hundred thousand seeded, untrained parameters.

`python -m workers.pipelines.small_kontext FOLDER` writes it as safetensors, under a megabyte, without any network. It loads
by the very same code as the real weights and makes noise, not art.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

SEED = 20250626
WIDTH = 32
LATENT_CHANNELS = 4


def _clip_tokenizer() -> CLIPTokenizer:
    """One token per byte, and one per byte at the end of a word; no merges."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<|startoftext|>", "<|endoftext|>", *symbols, *(symbol + "</w>" for symbol in symbols)]
    vocabulary = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _t5_tokenizer() -> T5TokenizerFast:
    """A unigram vocabulary of printable ASCII."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    pieces += [(f"<extra_id_{n}>", 0.0) for n in reversed(range(100))]
    return T5TokenizerFast(vocab=pieces, model_max_length=512)


def build() -> FluxKontextPipeline:
    """The pipeline, in evaluation mode: constructors leave dropout on, and eight equal calls would give eight pictures."""
    torch.manual_seed(SEED)
    clip, t5 = _clip_tokenizer(), _t5_tokenizer()
    vae = AutoencoderKL(
        sample_size=64,
        # Four blocks give the real model's factor of eight between pixels and latents.
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip), bos_token_id=0, eos_token_id=1, pad_token_id=1, hidden_size=WIDTH, intermediate_size=64,
            num_attention_heads=4, num_hidden_layers=2, projection_dim=WIDTH, max_position_embeddings=77, hidden_act="gelu",
        )
    )  # fmt: skip
    text_encoder_2 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5), d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
            tie_word_embeddings=False, is_encoder_decoder=False, use_cache=False,
        )
    )  # fmt: skip
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=LATENT_CHANNELS * 4,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    for network in (vae, text_encoder, text_encoder_2, transformer):
        network.eval()
    return FluxKontextPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip,
        text_encoder_2=text_encoder_2,
        tokenizer_2=t5,
        transformer=transformer,
    )


def write(folder: Path) -> None:
    """Build it into a folder, whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    build().save_pretrained(partial, safe_serialization=True)
    partial.rename(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target)
