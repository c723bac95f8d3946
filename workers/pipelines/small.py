"""Builds pipelines of the real classes with a hundred thousand seeded, untrained parameters each.

`python -m workers.pipelines.small FOLDER` writes `small-kontext`, `small-flux2` and `small-klein` there as safetensors, under a
megabyte each, without any network. They load by the very same code as the real weights and make noise, not art.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessorPil,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from workers.pipelines import processors

SEED = 20250626
WIDTH = 32
LATENT_CHANNELS = 4
ENCODER_WIDTH = 16
TEXT_LAYERS = (1, 2, 3)
"""Which layers the small FLUX.2 models read of their text encoders, which have one more."""

_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
_MISTRAL_WORDS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]",
    "<pad>",
)  # fmt: skip
_MISTRAL_TEMPLATE = """<s>
{%- for message in messages -%}
  {%- set open, close = ('[SYSTEM_PROMPT]', '[/SYSTEM_PROMPT]') if message.role == 'system' else ('[INST]', '[/INST]') -%}
  {{- open -}}
  {%- for part in message.content -%}{{- part.text if part.type == 'text' else '[IMG]' -}}{%- endfor -%}
  {{- close -}}
{%- endfor -%}"""
_QWEN_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""


def _clip_tokenizer() -> CLIPTokenizer:
    """One token per byte, and one per byte at the end of a word; no merges."""
    names = ["<|startoftext|>", "<|endoftext|>", *_BYTES, *(symbol + "</w>" for symbol in _BYTES)]
    vocabulary = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _t5_tokenizer() -> T5TokenizerFast:
    """A unigram vocabulary of printable ASCII."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(code), -3.0) for code in range(33, 127)]
    pieces += [(f"<extra_id_{n}>", 0.0) for n in reversed(range(100))]
    return T5TokenizerFast(vocab=pieces, model_max_length=512)


def _mistral_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the words of the chat template."""
    vocabulary = {name: number for number, name in enumerate((*_MISTRAL_WORDS, *_BYTES))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        additional_special_tokens=list(_MISTRAL_WORDS[3:10]), padding_side="left", model_max_length=512,
        chat_template=_MISTRAL_TEMPLATE,
    )  # fmt: skip


def _qwen_tokenizer() -> Qwen2TokenizerFast:
    """One token per byte, and the words of the chat template."""
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {name: number for number, name in enumerate((*words, *_BYTES))}
    tokenizer = Qwen2TokenizerFast(
        vocab=vocabulary, merges=[], model_max_length=512, additional_special_tokens=words[1:]
    )
    tokenizer.chat_template = _QWEN_TEMPLATE
    return tokenizer


def _autoencoder(kind: type[Any], **more: float) -> Any:
    return kind(
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
        **more,
    )


def kontext() -> FluxKontextPipeline:
    """FLUX.1 Kontext."""
    clip, t5 = _clip_tokenizer(), _t5_tokenizer()
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
        patch_size=1, in_channels=LATENT_CHANNELS * 4, num_layers=1, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    return FluxKontextPipeline(
        scheduler=scheduler,
        vae=_autoencoder(AutoencoderKL, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=text_encoder,
        tokenizer=clip,
        text_encoder_2=text_encoder_2,
        tokenizer_2=t5,
        transformer=transformer,
    )


def _flux2_transformer(*, guidance: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        patch_size=1, in_channels=LATENT_CHANNELS * 4, num_layers=1, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=ENCODER_WIDTH * len(TEXT_LAYERS), timestep_guidance_channels=256,
        axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance,
    )  # fmt: skip


def flux2() -> Flux2Pipeline:
    """FLUX.2 [dev]."""
    tokenizer = _mistral_tokenizer()
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 10}
    language = {
        "model_type": "mistral", "vocab_size": len(tokenizer), "hidden_size": ENCODER_WIDTH, "intermediate_size": 37,
        "max_position_embeddings": 2048, "num_attention_heads": 4, "head_dim": 4, "num_hidden_layers": max(TEXT_LAYERS) + 1,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "sliding_window": None, **tokens,
    }  # fmt: skip
    vision = {
        "model_type": "pixtral", "hidden_size": ENCODER_WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 37, "image_size": 28, "patch_size": 14, "num_channels": 3,
    }  # fmt: skip
    config = Mistral3Config(
        text_config=language, vision_config=vision, vision_feature_layer=-1, image_token_index=7, **tokens
    )
    processor = processors.pixtral()(
        image_processor=PixtralImageProcessorPil(patch_size=config.vision_config.patch_size),
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        spatial_merge_size=config.spatial_merge_size,
        chat_template=tokenizer.chat_template,
    )
    return Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_autoencoder(AutoencoderKLFlux2),
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=processor,
        transformer=_flux2_transformer(guidance=True),
    )


def klein(kind: type[Any] = Flux2KleinPipeline) -> Any:
    """FLUX.2 [klein], distilled; with `Flux2KleinKVPipeline` the variant that remembers its references."""
    tokenizer = _qwen_tokenizer()
    config = Qwen3Config(
        hidden_size=ENCODER_WIDTH, intermediate_size=16, num_hidden_layers=max(TEXT_LAYERS) + 1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, vocab_size=len(tokenizer), max_position_embeddings=2048,
    )  # fmt: skip
    return kind(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_autoencoder(AutoencoderKLFlux2),
        text_encoder=Qwen3ForCausalLM(config),
        tokenizer=tokenizer,
        transformer=_flux2_transformer(guidance=False),
        is_distilled=True,
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "small-kontext": kontext,
    "small-flux2": flux2,
    "small-klein": klein,
    "small-klein-kv": lambda: klein(Flux2KleinKVPipeline),
}


def built(name: str) -> Any:
    """A pipeline in evaluation mode: constructors leave dropout on, and eight equal calls would give eight pictures."""
    torch.manual_seed(SEED)
    pipe = BUILDERS[name]()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipe


def write(folder: Path) -> None:
    """Build those that are not there into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in BUILDERS:
        if not (folder / name).exists():
            partial = folder / f"{name}.partial"
            built(name).save_pretrained(partial, safe_serialization=True)
            partial.rename(folder / name)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
