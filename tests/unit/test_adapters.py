"""A LoRA is merged whole, in whatever format it comes, or refused by name."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_flux2_transformer_checkpoint_to_diffusers,
    convert_flux_transformer_checkpoint_to_diffusers,
)
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from storage.contracts import errors, plans
from tests.unit.test_pipelines import FAMILIES, _ignore, _job, _load, _weights, weights
from workers.pipelines import adapter_files, adapter_names, adapters, small

__all__ = ["weights"]

RANK = 4
Tensors = dict[str, torch.Tensor]

LAYERS = {
    "small-kontext": (
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.0.attn.to_k",
        "transformer_blocks.0.attn.to_v",
        "transformer_blocks.0.attn.to_out.0",
        "transformer_blocks.0.ff.net.0.proj",
        "single_transformer_blocks.1.attn.to_q",
        "single_transformer_blocks.1.attn.to_k",
        "single_transformer_blocks.1.attn.to_v",
        "single_transformer_blocks.1.proj_mlp",
        "single_transformer_blocks.1.proj_out",
    ),
    "small-flux2": (
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.0.attn.to_k",
        "transformer_blocks.0.attn.to_v",
        "transformer_blocks.0.ff.linear_in",
        "single_transformer_blocks.1.attn.to_qkv_mlp_proj",
        "single_transformer_blocks.1.attn.to_out",
    ),
}

ORIGINAL = {
    "small-kontext": {
        "double_blocks.0.img_attn.qkv": (0, 1, 2),
        "double_blocks.0.img_attn.proj": (3,),
        "double_blocks.0.img_mlp.0": (4,),
        "single_blocks.1.linear1": (5, 6, 7, 8),
        "single_blocks.1.linear2": (9,),
    },
    "small-flux2": {
        "double_blocks.0.img_attn.qkv": (0, 1, 2),
        "double_blocks.0.img_mlp.0": (3,),
        "single_blocks.1.linear1": (4,),
        "single_blocks.1.linear2": (5,),
    },
}
"""Black Forest Labs' layers, and which of ours their rows are."""


def _pairs(name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """For each layer `down` (rank, in) and `up` (out, rank). What is fused elsewhere shares its `down`."""
    transformer = small.built(name).transformer
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for members in ORIGINAL[name].values():
        down = None
        for member in members:
            linear = transformer.get_submodule(LAYERS[name][member])
            if down is None:
                down = torch.randn(RANK, linear.in_features, generator=generator) * 0.1
            up = torch.randn(linear.out_features, RANK, generator=generator) * 0.1
            pairs[LAYERS[name][member]] = (down, up)
    return pairs


def _ours(name: str, prefix: str, down: str, up: str) -> Tensors:
    pairs = _pairs(name).items()
    return {
        f"{prefix}{layer}.{suffix}": matrix.clone()
        for layer, matrices in pairs
        for suffix, matrix in zip((down, up), matrices, strict=True)
    }


def _original(name: str, naming: Callable[[str], str], down: str, up: str) -> Tensors:
    pairs, found = _pairs(name), {}
    for layer, members in ORIGINAL[name].items():
        ours = [pairs[LAYERS[name][member]] for member in members]
        found[f"{naming(layer)}.{down}"] = ours[0][0].clone()
        found[f"{naming(layer)}.{up}"] = torch.cat([one[1] for one in ours])
    return found


FORMATS: dict[str, Callable[[str], Tensors]] = {
    "diffusers": lambda name: _ours(name, "transformer.", "lora_A.weight", "lora_B.weight"),
    "PEFT": lambda name: _ours(name, "base_model.model.", "lora_A.weight", "lora_B.weight"),
    "PEFT, adapter named": lambda name: _ours(
        name, "base_model.model.", "lora_A.default.weight", "lora_B.default.weight"
    ),
    "unprefixed": lambda name: _ours(name, "", "lora_A.weight", "lora_B.weight"),
    "old diffusers": lambda name: _ours(name, "transformer.", "lora.down.weight", "lora.up.weight"),
    "ai-toolkit": lambda name: _original(
        name, lambda layer: f"diffusion_model.{layer}", "lora_A.weight", "lora_B.weight"
    ),
    "ComfyUI": lambda name: _original(
        name, lambda layer: f"diffusion_model.{layer}", "lora_down.weight", "lora_up.weight"
    ),
    "kohya": lambda name: _original(
        name, lambda layer: f"lora_unet_{layer.replace('.', '_')}", "lora_down.weight", "lora_up.weight"
    ),
    "kohya, diffusers' names": lambda name: {
        f"lora_transformer_{key.split('.lora')[0].replace('.', '_')}.lora{key.split('.lora')[1]}": tensor
        for key, tensor in _ours(name, "", "lora_down.weight", "lora_up.weight").items()
    },
}

every_format = pytest.mark.parametrize("format_", FORMATS)
both = pytest.mark.parametrize("name", LAYERS)


def _merged(
    name: str, folder: Path, tensors: Tensors, *, scale: float = 1.0, **metadata: str
) -> tuple[Any, adapters.Merged]:
    save_file(tensors, folder / "lora.safetensors", metadata={"format": "pt", **metadata})
    pipe = small.built(name)
    return pipe, adapters.merge(pipe, str(folder), scale=scale)


def _changes(name: str, pipe: Any) -> dict[str, torch.Tensor]:
    before = small.built(name).transformer.state_dict()
    return {
        key.removesuffix(".weight"): tensor - before[key]
        for key, tensor in pipe.transformer.state_dict().items()
        if not torch.equal(tensor, before[key])
    }


@both
@every_format
def test_every_format_changes_the_same_weights_by_the_same_amounts(tmp_path: Path, name: str, format_: str) -> None:
    tensors = FORMATS[format_](name)
    pipe, merged = _merged(name, tmp_path, tensors)
    changes = _changes(name, pipe)
    assert changes.keys() == set(LAYERS[name])
    for layer, (down, up) in _pairs(name).items():
        torch.testing.assert_close(changes[layer], up @ down, atol=1e-6, rtol=1e-4)
    assert merged.layers == len(tensors) // 2
    assert merged.linears == len(LAYERS[name])
    assert merged.norm > 0


@both
@every_format
def test_alpha_and_scale_are_honoured(tmp_path: Path, name: str, format_: str) -> None:
    tensors = FORMATS[format_](name)
    for key in [key for key in tensors if "lora_B" in key or "up" in key.rpartition("lora")[2]]:
        layer = key.split(".lora")[0]
        tensors[f"{layer}.alpha"] = torch.tensor(2.0 * RANK)
    pipe, _ = _merged(name, tmp_path, tensors, scale=0.25)
    for layer, change in _changes(name, pipe).items():
        down, up = _pairs(name)[layer]
        torch.testing.assert_close(change, 0.5 * up @ down, atol=1e-6, rtol=1e-4)


def test_an_alpha_that_diffusers_wrote_into_the_file_is_honoured(tmp_path: Path) -> None:
    settings = json.dumps({"transformer.lora_alpha": 3 * RANK, "transformer.r": RANK})
    pipe, _ = _merged("small-kontext", tmp_path, FORMATS["diffusers"]("small-kontext"), lora_adapter_metadata=settings)
    layer = LAYERS["small-kontext"][0]
    down, up = _pairs("small-kontext")[layer]
    torch.testing.assert_close(_changes("small-kontext", pipe)[layer], 3 * up @ down, atol=1e-6, rtol=1e-4)


def test_an_alpha_that_peft_wrote_beside_the_file_is_honoured(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 8, "use_rslora": True}))
    pipe, _ = _merged("small-kontext", tmp_path, FORMATS["PEFT"]("small-kontext"))
    layer = LAYERS["small-kontext"][0]
    down, up = _pairs("small-kontext")[layer]
    torch.testing.assert_close(_changes("small-kontext", pipe)[layer], 4 * up @ down, atol=1e-6, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*injecting the PEFT adapters:RuntimeWarning")
def test_what_diffusers_saves_is_merged_as_diffusers_merges_it(tmp_path: Path) -> None:
    tuned = small.built("small-kontext")
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "proj_mlp"])
    tuned.transformer.add_adapter(config)
    lora = get_peft_model_state_dict(tuned.transformer)
    tuned.save_lora_weights(
        tmp_path,
        transformer_lora_layers=lora,
        transformer_lora_adapter_metadata=config.to_dict() | {"target_modules": []},
    )
    theirs = small.built("small-kontext")
    theirs.load_lora_weights(str(tmp_path))
    theirs.fuse_lora()
    theirs.unload_lora_weights()
    ours = small.built("small-kontext")
    adapters.merge(ours, str(tmp_path))
    changed = _changes("small-kontext", ours)
    assert len(changed) == 11
    for layer, change in _changes("small-kontext", theirs).items():
        torch.testing.assert_close(changed[layer], change, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["small-kontext", "small-flux2"])
def test_a_merged_lora_changes_the_picture_and_costs_nothing(weights: Path, tmp_path: Path, name: str) -> None:
    save_file(FORMATS["ComfyUI"](name), tmp_path / "lora.safetensors")
    with_lora = _weights(name).model_copy(update={"lora": str(tmp_path)})
    tuned = FAMILIES[name].load(with_lora, weights / name, "cpu", plans.RESIDENT, lambda share: None)
    assert tuned.edit(_job(), _ignore).tobytes() != _load(weights, name).edit(_job(), _ignore).tobytes()
    assert not any("lora" in one for one, _ in tuned.pipe.transformer.named_parameters())


def test_a_lora_of_the_clip_text_encoder_is_merged_too(tmp_path: Path) -> None:
    pipe = small.built("small-kontext")
    name, linear = next(
        (name, module) for name, module in pipe.text_encoder.named_modules() if isinstance(module, torch.nn.Linear)
    )
    before = linear.weight.clone()
    down, up = torch.randn(RANK, linear.in_features), torch.randn(linear.out_features, RANK)
    key = f"lora_te1_{name.replace('.', '_')}"
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, tmp_path / "lora.safetensors")
    adapters.merge(pipe, str(tmp_path))
    torch.testing.assert_close(linear.weight - before, up @ down, atol=1e-5, rtol=1e-3)


def _refused(name: str, folder: Path, tensors: Tensors) -> str:
    with pytest.raises(errors.ModelUnavailableError) as refused:
        _merged(name, folder, tensors)
    return refused.value.message


def test_a_lora_none_of_whose_layers_match_is_refused_by_name(tmp_path: Path) -> None:
    tensors = {
        "down_blocks.0.to_q.lora_A.weight": torch.ones(4, 8),
        "down_blocks.0.to_q.lora_B.weight": torch.ones(8, 4),
    }
    told = _refused("small-kontext", tmp_path, tensors)
    assert told.startswith("1 of its 1 layers are none of a FluxTransformer2DModel: down_blocks.0.to_q")
    assert "kohya, ai-toolkit, ComfyUI, diffusers, PEFT" in told


def test_a_lora_that_matches_in_part_is_refused_and_merges_nothing(tmp_path: Path) -> None:
    tensors = FORMATS["diffusers"]("small-kontext")
    tensors |= {
        "transformer.other.lora_A.weight": torch.ones(4, 8),
        "transformer.other.lora_B.weight": torch.ones(8, 4),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    pipe = small.built("small-kontext")
    with pytest.raises(errors.ModelUnavailableError, match=r"1 of its 11 layers .* transformer\.other"):
        adapters.merge(pipe, str(tmp_path))
    assert _changes("small-kontext", pipe) == {}


def test_a_lora_of_another_family_is_refused(tmp_path: Path) -> None:
    assert "layers are none of" in _refused("small-flux2", tmp_path, FORMATS["diffusers"]("small-kontext"))


def test_a_lora_of_another_size_is_refused(tmp_path: Path) -> None:
    tensors = {
        key: tensor.repeat(1, 2) if "lora_A" in key else tensor
        for key, tensor in FORMATS["PEFT"]("small-flux2").items()
    }
    assert "is for 32x256 weights, and the model's are 32x128" in _refused("small-flux2", tmp_path, tensors)


def test_a_lora_of_zeros_is_refused(tmp_path: Path) -> None:
    tensors = {key: torch.zeros_like(tensor) for key, tensor in FORMATS["kohya"]("small-flux2").items()}
    assert _refused("small-flux2", tmp_path, tensors) == "it changes no weight: all its matrices are zero"


@pytest.mark.parametrize("odd", ["dora_scale", "lokr_w1", "hada_w1_a"])
def test_adapters_of_other_kinds_are_refused(tmp_path: Path, odd: str) -> None:
    tensors = FORMATS["diffusers"]("small-flux2") | {f"transformer.transformer_blocks.0.attn.to_q.{odd}": torch.ones(3)}
    assert odd in _refused("small-flux2", tmp_path, tensors)


def test_half_a_layer_is_refused(tmp_path: Path) -> None:
    tensors = FORMATS["diffusers"]("small-flux2")
    del tensors["transformer.transformer_blocks.0.attn.to_q.lora_B.weight"]
    assert "transformer.transformer_blocks.0.attn.to_q" in _refused("small-flux2", tmp_path, tensors)


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "lora.pt")
    for source in (tmp_path, tmp_path / "lora.pt"):
        with pytest.raises(errors.ModelUnavailableError, match=r"safetensors"):
            adapters.merge(small.built("small-flux2"), str(source))


def test_of_several_files_the_usual_name_is_taken_or_none(tmp_path: Path) -> None:
    for file in ("a.safetensors", "b.safetensors"):
        save_file(FORMATS["diffusers"]("small-flux2"), tmp_path / file)
    with pytest.raises(
        errors.ModelUnavailableError, match=r"one safetensors file; it holds 2: a\.safetensors, b\.safetensors"
    ):
        adapters.merge(small.built("small-flux2"), str(tmp_path))
    (tmp_path / "a.safetensors").rename(tmp_path / adapter_files.DEFAULT_FILE)
    assert adapters.merge(small.built("small-flux2"), str(tmp_path)).layers == 6
    assert adapters.merge(small.built("small-flux2"), str(tmp_path / "b.safetensors")).layers == 6


def test_a_folder_without_a_lora_is_said_to_be(weights: Path, tmp_path: Path) -> None:
    without = _weights("small-kontext").model_copy(update={"lora": str(tmp_path)})
    with pytest.raises(
        errors.ModelUnavailableError, match="small-kontext: LoRA: its folder must hold one safetensors file"
    ):
        FAMILIES["small-kontext"].load(without, weights / "small-kontext", "cpu", plans.RESIDENT, lambda share: None)


def test_the_formats_differ_in_their_names() -> None:
    """Or the tests above would test one format nine times."""
    names = [frozenset(load(name="small-kontext")) for load in FORMATS.values()]
    assert len(set(names)) == len(FORMATS)


def _pair(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(RANK, columns, generator=generator), torch.randn(rows, RANK, generator=generator)


@pytest.mark.parametrize(
    "key",
    [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te1_encoder_layers_0_mlp_fc1",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1", "text_encoder.encoder.layers.0.mlp.fc1",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
    ],
)  # fmt: skip
def test_a_layer_of_the_clip_text_encoder_has_the_names_that_trainers_give_it(tmp_path: Path, key: str) -> None:
    """They saved it from a transformers that had a `text_model` in between."""
    down, up = _pair(64, 32)
    pipe, _ = _merged("small-kontext", tmp_path, {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up})
    before = small.built("small-kontext").text_encoder.get_submodule("encoder.layers.0.mlp.fc1").weight
    after = pipe.text_encoder.get_submodule("encoder.layers.0.mlp.fc1").weight
    torch.testing.assert_close(after - before, up @ down, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("key", ["lora_te3_encoder_block_0_layer_0_SelfAttention_q", "text_encoder_2.shared"])
def test_layers_of_a_text_encoder_that_is_not_tuned_here_are_refused(tmp_path: Path, key: str) -> None:
    down, up = _pair(32, 32)
    more = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    assert key in _refused("small-kontext", tmp_path, FORMATS["kohya"]("small-kontext") | more)


def test_layers_that_add_nothing_need_no_place(tmp_path: Path) -> None:
    """ComfyUI's exporters write zeros for a T5 that was not trained."""
    zeros = {
        "text_encoders.t5xxl.transformer.encoder.lora_A.weight": torch.ones(RANK, 8),
        "text_encoders.t5xxl.transformer.encoder.lora_B.weight": torch.zeros(8, RANK),
    }
    _, merged = _merged("small-kontext", tmp_path, FORMATS["ComfyUI"]("small-kontext") | zeros)
    assert merged.layers == 5


def test_xlabs_names_are_read(tmp_path: Path) -> None:
    pairs, tensors = _pairs("small-kontext"), {}
    for layer, members in (
        ("double_blocks.0.processor.qkv_lora1", LAYERS["small-kontext"][:3]),
        ("double_blocks.0.processor.proj_lora1", LAYERS["small-kontext"][3:4]),
        ("single_blocks.1.processor.qkv_lora", LAYERS["small-kontext"][5:8]),
        ("single_blocks.1.processor.proj_lora", LAYERS["small-kontext"][9:]),
    ):
        tensors[f"{layer}.down.weight"] = pairs[members[0]][0].clone()
        tensors[f"{layer}.up.weight"] = torch.cat([pairs[member][1] for member in members])
    pipe, merged = _merged("small-kontext", tmp_path, tensors)
    assert (merged.format, merged.layers, merged.linears) == ("XLabs", 4, 8)
    for layer, change in _changes("small-kontext", pipe).items():
        down, up = pairs[layer]
        torch.testing.assert_close(change, up @ down, atol=1e-6, rtol=1e-4)


def test_the_format_is_told(tmp_path: Path) -> None:
    told = {}
    for format_, tensors in FORMATS.items():
        (tmp_path / format_.replace(" ", "")).mkdir()
        told[format_] = _merged("small-flux2", tmp_path / format_.replace(" ", ""), tensors("small-flux2"))[1].format
    assert told == {
        "diffusers": "diffusers", "old diffusers": "diffusers", "PEFT": "PEFT", "PEFT, adapter named": "PEFT",
        "unprefixed": "PEFT", "ai-toolkit": "ComfyUI", "ComfyUI": "ComfyUI", "kohya": "kohya",
        "kohya, diffusers' names": "kohya",
    }  # fmt: skip


@pytest.mark.parametrize("key", ["ss_base_model_version", "modelspec.architecture"])
@pytest.mark.parametrize(("name", "theirs"), [("small-flux2", "flux1"), ("small-kontext", "flux-2-dev/lora")])
def test_a_lora_that_says_it_is_of_another_family_is_refused_even_if_it_fits(
    tmp_path: Path, name: str, theirs: str, key: str
) -> None:
    """The attention of FLUX.2 [klein] has FLUX.1's names and sizes."""
    with pytest.raises(errors.ModelUnavailableError, match=rf"is for FLUX\.{'1' if '1' in theirs else '2'}"):
        _merged(name, tmp_path, FORMATS["kohya"](name), **{key: theirs})


def test_a_lora_that_says_it_is_of_this_family_is_merged(tmp_path: Path) -> None:
    _merged("small-flux2", tmp_path, FORMATS["kohya"]("small-flux2"), ss_base_model_version="flux2_klein_4b")


def test_a_layer_named_twice_is_refused(tmp_path: Path) -> None:
    """Some files hold the same LoRA in two formats; merging both would count it twice."""
    tensors = FORMATS["diffusers"]("small-kontext") | FORMATS["kohya"]("small-kontext")
    told = _refused("small-kontext", tmp_path, tensors)
    assert "transformer_blocks.0.attn.to_q" in told
    assert told.endswith("twice")


def test_sizes_are_checked_before_anything_is_merged(tmp_path: Path) -> None:
    tensors = FORMATS["diffusers"]("small-flux2")
    last = f"{max(tensors).rpartition('.lora')[0]}.lora_A.weight"
    save_file(tensors | {last: torch.ones(RANK, 7)}, tmp_path / "lora.safetensors")
    pipe = small.built("small-flux2")
    with pytest.raises(errors.ModelUnavailableError, match=r"ff\.linear_in is for 192x7 weights"):
        adapters.merge(pipe, str(tmp_path))
    assert _changes("small-flux2", pipe) == {}


def test_a_lora_too_weak_for_the_weights_precision_is_refused(tmp_path: Path) -> None:
    tensors = {key: tensor * 1e-6 for key, tensor in FORMATS["diffusers"]("small-flux2").items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    pipe = small.built("small-flux2").to(torch.bfloat16)
    with pytest.raises(errors.ModelUnavailableError, match="too weak to change a weight in bfloat16"):
        adapters.merge(pipe, str(tmp_path))


def test_a_lora_with_numbers_that_are_none_is_refused(tmp_path: Path) -> None:
    tensors = FORMATS["diffusers"]("small-flux2")
    tensors[f"transformer.{LAYERS['small-flux2'][0]}.lora_A.weight"][0, 0] = float("nan")
    assert "not finite" in _refused("small-flux2", tmp_path, tensors)


def test_a_merge_in_bf16_is_rounded_once(tmp_path: Path) -> None:
    save_file(FORMATS["diffusers"]("small-flux2"), tmp_path / "lora.safetensors")
    pipe = small.built("small-flux2").to(torch.bfloat16)
    layer = LAYERS["small-flux2"][0]
    before = pipe.transformer.get_submodule(layer).weight.float()
    adapters.merge(pipe, str(tmp_path))
    down, up = _pairs("small-flux2")[layer]
    expected = (before + up @ down).to(torch.bfloat16)
    assert torch.equal(pipe.transformer.get_submodule(layer).weight, expected)


def test_halves_of_the_final_modulation_change_places(tmp_path: Path) -> None:
    """Black Forest Labs' code has shift before scale, diffusers' scale before shift."""
    down, up = _pair(64, 32)
    key = "lora_unet_final_layer_adaLN_modulation_1"
    for name in LAYERS:
        (tmp_path / name).mkdir()
        tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        pipe, _ = _merged(name, tmp_path / name, tensors)
        change = _changes(name, pipe)["norm_out.linear"]
        torch.testing.assert_close(change, torch.cat([up[32:], up[:32]]) @ down, atol=1e-5, rtol=1e-3)


def test_alphas_of_transformer_and_text_encoder_are_told_apart(tmp_path: Path) -> None:
    down, up = _pair(64, 32)
    encoder = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    tensors = FORMATS["diffusers"]("small-kontext")
    tensors |= {f"{encoder}.lora_A.weight": down, f"{encoder}.lora_B.weight": up}
    settings = {"transformer.lora_alpha": 3 * RANK, "text_encoder.lora_alpha": 2 * RANK}
    settings["transformer.alpha_pattern"] = {"transformer_blocks.0.attn.to_k": RANK}
    pipe, _ = _merged("small-kontext", tmp_path, tensors, lora_adapter_metadata=json.dumps(settings))
    changes, pairs = _changes("small-kontext", pipe), _pairs("small-kontext")
    before = small.built("small-kontext").text_encoder.get_submodule("encoder.layers.0.mlp.fc1").weight
    change = pipe.text_encoder.get_submodule("encoder.layers.0.mlp.fc1").weight - before
    torch.testing.assert_close(change, 2 * up @ down, atol=1e-4, rtol=1e-3)
    for layer, factor in (("to_q", 3.0), ("to_k", 1.0)):
        down, up = pairs[f"transformer_blocks.0.attn.{layer}"]
        torch.testing.assert_close(
            changes[f"transformer_blocks.0.attn.{layer}"], factor * up @ down, atol=1e-5, rtol=1e-3
        )


class _Checkpoint(dict[str, torch.Tensor]):
    """Of Black Forest Labs' names; what a converter looks for besides is zeros."""

    def pop(self, key: str, *_: object) -> torch.Tensor:
        # FLUX.1's converter takes its width of 3072 for granted.
        return super().pop(key, torch.zeros(7 * 3072 if "linear1" in key else 6))


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("small-kontext", convert_flux_transformer_checkpoint_to_diffusers),
        ("small-flux2", convert_flux2_transformer_checkpoint_to_diffusers),
    ],
)
def test_original_names_mean_what_diffusers_takes_them_for_in_whole_checkpoints(
    name: str, convert: Callable[[_Checkpoint], Tensors]
) -> None:
    transformer = small.built(name).transformer
    names = dict(adapter_names._original_names(type(transformer).__name__, transformer))
    checkpoint = _Checkpoint()
    for layer in names:
        if ".processor." not in layer:
            rows = 7 * 3072 if "linear1" in layer else 6
            checkpoint[f"{layer}.weight"] = torch.rand(rows, 1)
    written = dict(checkpoint)
    converted = convert(checkpoint)
    assert len(written) >= 17
    for key, weight in written.items():
        target = names[key.removesuffix(".weight")]
        theirs = torch.cat([converted[f"{layer}.weight"] for layer in target.names])
        assert torch.equal(theirs, torch.cat(weight.chunk(2)[::-1]) if target.swapped else weight), key


@both
def test_every_original_name_is_of_a_layer_that_there_is(name: str) -> None:
    """A misspelt one would refuse a LoRA that fits."""
    transformer = small.built(name).transformer
    names = dict(adapter_names._original_names(type(transformer).__name__, transformer))
    assert names.keys() <= adapter_names.targets(transformer, None).keys()


FROM_THE_HUB = """
import sys, torch
from workers.pipelines import adapters, small
pipe = small.built("small-kontext")
layer = pipe.transformer.transformer_blocks[0].attn.to_q
before = layer.weight.clone()
merged = adapters.merge(pipe, "someone/style")
print(merged.layers, float((layer.weight - before).norm()))
"""


def test_a_lora_of_the_hub_is_merged_from_the_cache_with_the_alpha_that_peft_wrote_beside_it(tmp_path: Path) -> None:
    """With the real library, offline."""
    snapshot = tmp_path / "models--someone--style" / "snapshots" / ("4" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("4" * 40)
    save_file(FORMATS["PEFT"]("small-kontext"), snapshot / "adapter_model.safetensors")
    (snapshot / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 5 * RANK}))
    ran = subprocess.run(
        [sys.executable, "-c", FROM_THE_HUB],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    layers, norm = ran.stdout.split()
    down, up = _pairs("small-kontext")["transformer_blocks.0.attn.to_q"]
    assert (int(layers), float(norm)) == (10, pytest.approx(float((5 * up @ down).norm()), rel=1e-4))


def test_only_what_is_needed_is_fetched_from_the_hub_and_of_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(FORMATS["PEFT"]("small-kontext"), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": RANK}))
    files = ["README.md", "adapter_config.json", "adapter_model.safetensors", "optimizer.bin"]
    fetched = []

    def model_info(repository: str, *, revision: str | None) -> SimpleNamespace:
        return SimpleNamespace(sha="5" * 40, siblings=[SimpleNamespace(rfilename=name) for name in files])

    def download(repository: str, name: str, *, revision: str | None) -> str:
        fetched.append((repository, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert adapters.merge(small.built("small-kontext"), "someone/style").layers == 10
    assert sorted(fetched) == [("someone/style", name, "5" * 40) for name in files[1:3]]


@pytest.mark.parametrize("name", LAYERS)
def test_how_strongly_a_lora_works_is_each_edits_own_and_nothing_adds_up(
    weights: Path, tmp_path: Path, name: str
) -> None:
    save_file(FORMATS["ComfyUI"](name), tmp_path / "lora.safetensors")

    def loaded(**lora: Any) -> Any:
        known = _weights(name).model_copy(update=lora)
        return FAMILIES[name].load(known, weights / name, "cpu", plans.RESIDENT, lambda share: None)

    plain, merged = loaded(), loaded(lora=str(tmp_path))
    scalable = loaded(lora=str(tmp_path), scalable_lora=True)

    def drawn(pipeline: Any, scale: float | None = None) -> bytes:
        picture: bytes = pipeline.edit(_job(lora_scale=scale), _ignore).tobytes()
        return picture

    whole, without = drawn(scalable), drawn(plain)
    assert whole != without
    assert drawn(scalable, 0.0) == without
    assert drawn(scalable, 2.0) not in (whole, without)
    assert drawn(scalable, 1.0) == whole, "whatever was asked for before"
    apart = [abs(one - other) for one, other in zip(whole, drawn(merged), strict=True)]
    assert max(apart) <= 2, "as if it were merged, but for rounding"


def test_a_lora_of_the_text_encoder_cannot_be_scaled(tmp_path: Path) -> None:
    pipe = small.built("small-kontext")
    name, linear = next(
        (name, module) for name, module in pipe.text_encoder.named_modules() if isinstance(module, torch.nn.Linear)
    )
    down, up = torch.randn(RANK, linear.in_features), torch.randn(linear.out_features, RANK)
    key = f"lora_te1_{name.replace('.', '_')}"
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, tmp_path / "lora.safetensors")
    with pytest.raises(errors.ModelUnavailableError, match="text encoder"):
        adapters.attach(pipe, str(tmp_path))
