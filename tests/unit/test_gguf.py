"""A transformer from a GGUF file: as ComfyUI's users keep them, streamed like others, planned by its bits."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from storage.contracts import errors, planning
from storage.contracts.catalog_files import merge
from storage.contracts.plans import PartPlan, Plan
from storage.settings import StoreSettings
from tests.unit.test_pipelines import FAMILIES, _ignore, _job, _load, _weights, weights
from workers.loader import Loader
from workers.pipelines import execution, gguf_files
from workers.pipelines.denoising import Denoising

__all__ = ["weights"]

Q8 = gguf.GGMLQuantizationType.Q8_0
NAMES = ("small-kontext", "small-flux2")


@pytest.fixture(scope="module")
def files(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small transformers' layers in 8 bits."""
    folder = tmp_path_factory.mktemp("gguf")
    for name in NAMES:
        _write(folder / f"{name}.gguf", load_file(next((weights / name / "transformer").glob("*.safetensors"))))
    return folder


def _write(file: Path, tensors: dict[str, Any]) -> None:
    writer = gguf.GGUFWriter(file, "flux")
    for key, tensor in tensors.items():
        values = tensor.float().numpy()
        if values.ndim == 2 and values.shape[1] % 32 == 0 and "blocks" in key and "norm" not in key:
            writer.add_tensor(key, gguf.quants.quantize(values, Q8), raw_dtype=Q8)
        else:
            writer.add_tensor(key, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _loaded(weights: Path, name: str, file: str, plan: Plan) -> Denoising:
    wanted = _weights(name).model_copy(update={"format": "q8", "gguf": file})
    found: Denoising = FAMILIES[name].load(wanted, weights / name, "cpu", plan, lambda share: None)
    return found


HERE = Plan(profile="fast", transformer=PartPlan(format="q8", layers=56))
STREAMED = Plan(profile="fast", transformer=PartPlan(format="q8", layers=56, streamed=28))


@pytest.mark.parametrize("name", NAMES)
def test_a_transformer_is_read_from_a_gguf_file_and_all_else_from_the_weights(
    weights: Path, files: Path, name: str
) -> None:
    pipeline = _loaded(weights, name, str(files / f"{name}.gguf"), HERE)
    assert any(isinstance(module, gguf_files.DequantisingLinear) for module in pipeline.pipe.transformer.modules())
    found = np.asarray(pipeline.edit(_job(), _ignore), np.float32)
    expected = np.asarray(_load(weights, name).edit(_job(), _ignore), np.float32)
    assert 0 < np.abs(found - expected).max() < 20
    assert pipeline.facts.plan == "q8, resident"


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_a_gguf_file_are_streamed_to_the_same_pixels(weights: Path, files: Path, name: str) -> None:
    file = str(files / f"{name}.gguf")
    here, streamed = (_loaded(weights, name, file, plan) for plan in (HERE, STREAMED))
    assert streamed.applied.transformer is not None
    assert streamed.edit(_job(), _ignore).tobytes() == here.edit(_job(), _ignore).tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_a_gguf_file_are_traced_whole(weights: Path, files: Path, name: str) -> None:
    pipeline = _loaded(weights, name, str(files / f"{name}.gguf"), HERE)
    expected = pipeline.edit(_job(), _ignore).tobytes()
    torch._dynamo.reset()
    breaks = torch._dynamo.utils.counters["graph_break"]
    breaks.clear()
    for stack in execution.stacks(pipeline.pipe.transformer):
        for layer in stack:
            # Tracing alone: what it is made into is another's business.
            layer.compile(backend="aot_eager", dynamic=True)
    assert pipeline.edit(_job(), _ignore).tobytes() == expected
    assert not breaks


def test_a_gguf_files_layers_are_computed_as_diffusers_does(weights: Path, files: Path) -> None:
    pipeline = _loaded(weights, "small-flux2", str(files / "small-flux2.gguf"), HERE)
    found = pipeline.edit(_job(), _ignore).tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_files, "_plain", lambda part: None)
        theirs = _loaded(weights, "small-flux2", str(files / "small-flux2.gguf"), HERE)
    assert found == theirs.edit(_job(), _ignore).tobytes()


def test_a_gguf_file_that_lacks_a_weight_is_said_to_be_incomplete(weights: Path, tmp_path: Path) -> None:
    tensors = load_file(next((weights / "small-flux2" / "transformer").glob("*.safetensors")))
    gone = next(key for key in sorted(tensors) if "transformer_blocks.0" in key)
    del tensors[gone]
    _write(tmp_path / "short.gguf", tensors)
    with pytest.raises(errors.ModelUnavailableError, match="small-flux2: transformer"):
        _loaded(weights, "small-flux2", str(tmp_path / "short.gguf"), HERE)


def test_a_gguf_file_that_is_not_there_is_said_to_be(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF" + bytes(100))
    for file in ("none.gguf", str(tmp_path / "none.gguf"), str(tmp_path / "damaged.gguf")):
        with pytest.raises(errors.ModelUnavailableError, match="small-flux2: ") as refused:
            _loaded(weights, "small-flux2", file, HERE)
        assert str(tmp_path) not in refused.value.message


def _catalog(**weights: object) -> Any:
    known = StoreSettings().read_catalog().model_dump(exclude_defaults=True)
    own = {"extends": "flux-2-dev", "profile": "fast", "weights": {"name": "flux2-q4", **weights}}
    return merge([known, {"models": {"flux-2-dev-q4": own}}])


def test_an_operator_adds_a_gguf_file_and_its_plan_counts_its_bits() -> None:
    known = _catalog(gguf="flux2-dev-Q4_K_M.gguf", format="q4")
    plan = planning.planned(known.model("flux-2-dev-q4"), known.gpu_types["l40s"])
    assert plan is not None
    assert plan.name == "q4, resident, text encoder streamed, step cache"
    # 62.8 GB of quantised weights at 4.5 bits, and what is outside of the layers in bf16.
    denoiser = 62.8 * 0.28125 + 1.633
    assert plan.phases.resting == pytest.approx(denoiser + 1.342 + 0.168, abs=0.05)


@pytest.mark.parametrize(
    "odd",
    [{"format": "q4"}, {"gguf": "x.gguf"}, {"format": "nf4", "gguf": "x.gguf"}],
    ids=["no file", "no format", "nf4"],
)
def test_a_catalog_that_names_half_of_it_does_not_start(odd: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"weights.gguf and weights.format q8, q6, q5 or q4 go together"):
        _catalog(**odd)


def test_a_file_below_the_weights_directory_is_found(weights: Path, files: Path, tmp_path: Path) -> None:
    (tmp_path / "small-flux2").symlink_to(weights / "small-flux2")
    (tmp_path / "quantised.gguf").symlink_to(files / "small-flux2.gguf")
    model = _catalog(gguf="quantised.gguf", format="q8").model("flux-2-dev-q4")
    own = _weights("small-flux2").model_copy(update={"format": "q8", "gguf": "quantised.gguf"})
    small = model.model_copy(
        update={
            "weights": own,
            "frame": model.frame.model_copy(update={"sizes": ("128x128",), "reference_pixels": 128 * 128}),
        }
    )
    loaded = Loader(weights_dir=tmp_path, gpu_type="cpu").load(small, HERE, lambda share: None)
    assert loaded.pipeline.edit(_job(), _ignore).size == (128, 128)
