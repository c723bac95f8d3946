"""A LoRA is merged whole, in whatever format it comes, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from storage.contracts import errors, plans
from tests.unit.test_pipelines import FAMILIES, _ignore, _job, _load, _weights, weights
from workers.pipelines import adapters, small

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
    return pipe, adapters.merge(pipe, str(folder), name="tuned", scale=scale)


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
    adapters.merge(ours, str(tmp_path), name="tuned")
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
    adapters.merge(pipe, str(tmp_path), name="tuned")
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
    assert told.startswith("tuned: 1 of 1 layers of the LoRA are none of FluxTransformer2DModel's: down_blocks.0.to_q")
    assert "kohya, ai-toolkit, ComfyUI, diffusers and PEFT" in told


def test_a_lora_that_matches_in_part_is_refused_and_merges_nothing(tmp_path: Path) -> None:
    tensors = FORMATS["diffusers"]("small-kontext")
    tensors |= {
        "transformer.other.lora_A.weight": torch.ones(4, 8),
        "transformer.other.lora_B.weight": torch.ones(8, 4),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    pipe = small.built("small-kontext")
    with pytest.raises(errors.ModelUnavailableError, match=r"1 of 11 layers .* transformer\.other"):
        adapters.merge(pipe, str(tmp_path), name="tuned")
    assert _changes("small-kontext", pipe) == {}


def test_a_lora_of_another_family_is_refused(tmp_path: Path) -> None:
    assert "layers of the LoRA are none of" in _refused("small-flux2", tmp_path, FORMATS["diffusers"]("small-kontext"))


def test_a_lora_of_another_size_is_refused(tmp_path: Path) -> None:
    tensors = {
        key: tensor.repeat(1, 2) if "lora_A" in key else tensor
        for key, tensor in FORMATS["PEFT"]("small-flux2").items()
    }
    assert "is for 32x256 weights, and the model's are 32x128" in _refused("small-flux2", tmp_path, tensors)


def test_a_lora_of_zeros_is_refused(tmp_path: Path) -> None:
    tensors = {key: torch.zeros_like(tensor) for key, tensor in FORMATS["kohya"]("small-flux2").items()}
    assert _refused("small-flux2", tmp_path, tensors) == "tuned: the LoRA changes no weight: all its matrices are zero"


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
            adapters.merge(small.built("small-flux2"), str(source), name="tuned")


def test_of_several_files_the_usual_name_is_taken_or_none(tmp_path: Path) -> None:
    for file in ("a.safetensors", "b.safetensors"):
        save_file(FORMATS["diffusers"]("small-flux2"), tmp_path / file)
    with pytest.raises(
        errors.ModelUnavailableError, match=r"one safetensors file; it holds 2: a\.safetensors, b\.safetensors"
    ):
        adapters.merge(small.built("small-flux2"), str(tmp_path), name="tuned")
    (tmp_path / "a.safetensors").rename(tmp_path / adapters.DEFAULT_FILE)
    assert adapters.merge(small.built("small-flux2"), str(tmp_path), name="tuned").layers == 6
    assert adapters.merge(small.built("small-flux2"), str(tmp_path / "b.safetensors"), name="tuned").layers == 6


def test_a_folder_without_a_lora_is_said_to_be(weights: Path, tmp_path: Path) -> None:
    without = _weights("small-kontext").model_copy(update={"lora": str(tmp_path)})
    with pytest.raises(
        errors.ModelUnavailableError, match="small-kontext: the LoRA's folder must hold one safetensors file"
    ):
        FAMILIES["small-kontext"].load(without, weights / "small-kontext", "cpu", plans.RESIDENT, lambda share: None)


def test_the_formats_differ_in_their_names() -> None:
    """Or the tests above would test one format nine times."""
    names = [frozenset(load(name="small-kontext")) for load in FORMATS.values()]
    assert len(set(names)) == len(FORMATS)
    assert load_file
