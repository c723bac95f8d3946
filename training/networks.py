"""The parts of `kontext-mini`: the real classes, a few million parameters."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

SHIPPED = Path(__file__).parents[1] / "infra" / "weights" / "kontext-mini"
"""What a stage goes on from unless it begins anew."""
LATENT_CHANNELS = 32
"""As in FLUX.2. With 16, as in FLUX.1, the best linear map of eight by eight pixels keeps 22 to 25 dB of photographs this
small; with 32 it keeps 26 to 28."""
TEXT_WIDTH = 256
POOLED_WIDTH = 256
CLIP_PIECES = 3_000
TOKENS = 32
"""Tokens of the instruction that are read."""


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16() -> torch.autocast:
    """Matrices are multiplied in bf16 in this block, on devices with units for it; on others it would take many times as long."""
    kind = device().type
    units = kind == "cuda" or any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    return torch.autocast(kind, torch.bfloat16, enabled=units)


def shipped(network: nn.Module, part: str) -> Any:
    """The network, given the weights of a part of the shipped pipeline. Raises `RuntimeError` where they do not fit."""
    loaded = type(network).from_pretrained(SHIPPED, subfolder=part, dtype=torch.float32, use_safetensors=True)
    network.load_state_dict(loaded.state_dict())
    return network


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


def clip_tokenizer(sentences: Iterable[str]) -> CLIPTokenizer:
    """Byte pairs learned from sentences; every byte alone, and at the end of a word."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))  # noqa: S106
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=CLIP_PIECES,
        end_of_word_suffix="</w>",
        initial_alphabet=letters,
        show_progress=False,
        min_frequency=3,
    )
    learner.train_from_iterator(sentences, trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    names = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    known = set(names)
    names += [name for name in dict.fromkeys("".join(merge) for merge in merges) if name not in known]
    return CLIPTokenizer(vocab={name: place for place, name in enumerate(names)}, merges=merges, model_max_length=77)


def t5_tokenizer(words: Sequence[str], endings: Sequence[str]) -> PreTrainedTokenizerFast:
    """Whole words, pieces of words and every printable character, lower case, without accents; as few as possible are taken."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(chr(code), -10.0) for code in range(33, 127) if not chr(code).isupper()] + [("▁", -10.0)]
    pieces += [(f"▁{word}", -10.0 - 1 / len(word)) for word in words] + [
        (piece, -10.5 - 1 / len(piece)) for piece in endings
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    one_space = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence(
        [*one_space, normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=TOKENS, **named)


def clip(pieces: int) -> CLIPTextModel:
    """Gives the pooled vector that modulates every block."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=pieces,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            hidden_size=POOLED_WIDTH,
            intermediate_size=512,
            num_attention_heads=8,
            num_hidden_layers=4,
            projection_dim=POOLED_WIDTH,
            max_position_embeddings=77,
            hidden_act="gelu",
        )
    )


def t5(pieces: int) -> T5EncoderModel:
    """Gives one vector per token of the instruction."""
    return T5EncoderModel(
        T5Config(
            vocab_size=pieces,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=512,
            num_layers=3,
            num_heads=8,
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
