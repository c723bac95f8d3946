"""Weights of 4 bits: read as bitsandbytes wrote them, streamed like others, and never changed by a LoRA.

diffusers loads them only where it sees a GPU, although bitsandbytes multiplies on a CPU as well; that check is taken out. So is
what bitsandbytes does otherwise on processors with AVX512-BF16, where it cannot pack layers as narrow as these.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.nn import modules
from diffusers import BitsAndBytesConfig, Flux2Transformer2DModel
from diffusers.quantizers.bitsandbytes import bnb_quantizer
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig as EncoderConfig
from transformers import Mistral3ForConditionalGeneration

from storage.contracts import errors
from storage.contracts.plans import PartPlan, Plan
from tests.unit.test_pipelines import _ignore, _job, _load, _weights, weights
from workers.pipelines import flux2
from workers.pipelines.denoising import Denoising

__all__ = ["weights"]

HERE = Plan(
    profile="fast", transformer=PartPlan(format="nf4", layers=56), text_encoder=PartPlan(format="nf4", layers=30)
)
STREAMED = Plan(
    profile="fast",
    transformer=PartPlan(format="nf4", layers=56, streamed=28),
    text_encoder=PartPlan(format="nf4", layers=30, streamed=30),
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def without_gpu() -> Iterator[None]:
    patch, quantizer = pytest.MonkeyPatch(), bnb_quantizer.BnB4BitDiffusersQuantizer
    patch.setattr(quantizer, "validate_environment", lambda self, *arguments, **named: None)
    patch.setattr(quantizer, "update_device_map", lambda self, device_map: {"": "cpu"})
    patch.setattr(modules, "has_avx512bf16", lambda: False)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def quantised(weights: Path, tmp_path_factory: pytest.TempPathFactory, without_gpu: None) -> Path:
    """The small FLUX.2 as a checkpoint of 4 bits."""
    source, target = weights / "small-flux2", tmp_path_factory.mktemp("four") / "small-flux2"
    shutil.copytree(source, target)
    settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
    for name, kind, config in (
        ("transformer", Flux2Transformer2DModel, BitsAndBytesConfig(**settings)),
        ("text_encoder", Mistral3ForConditionalGeneration, EncoderConfig(**settings)),
    ):
        shutil.rmtree(target / name)
        part = kind.from_pretrained(source, subfolder=name, quantization_config=config, dtype=torch.float32)
        part.save_pretrained(target / name)
    return target


def _quantised(folder: Path, plan: Plan, lora: Path | None = None) -> Denoising:
    wanted = _weights("small-flux2").model_copy(update={"format": "nf4", "lora": str(lora) if lora else None})
    return flux2.load(wanted, folder, "cpu", plan, lambda share: None)


def test_weights_of_four_bits_give_a_picture_not_far_from_the_whole_ones(weights: Path, quantised: Path) -> None:
    pipeline = _quantised(quantised, HERE)
    kinds = {type(module).__name__ for module in pipeline.pipe.transformer.modules()}
    assert "Linear4bit" in kinds
    found = np.asarray(pipeline.edit(_job(), _ignore), np.float32)
    expected = np.asarray(_load(weights, "small-flux2").edit(_job(), _ignore), np.float32)
    assert 0 < np.abs(found - expected).mean() < 20
    assert pipeline.facts.plan == "nf4, resident, text encoder nf4"
    assert pipeline.facts.profile == "fast"


def test_layers_of_four_bits_are_streamed_to_the_same_pixels(quantised: Path) -> None:
    here, streamed = _quantised(quantised, HERE), _quantised(quantised, STREAMED)
    rings = (streamed.applied.transformer, streamed.applied.text_encoder)
    assert [ring and len(ring) for ring in rings] == [2, 3]
    for seed in (1, 2):
        job = _job(seed=seed)
        assert streamed.edit(job, _ignore).tobytes() == here.edit(job, _ignore).tobytes()
    (layer,) = (layer for layer in here.pipe.text_encoder.model.language_model.layers[:1])
    packed = sum(weight.numel() * weight.element_size() for weight in layer.parameters())
    assert streamed.applied.text_encoder is not None
    assert streamed.applied.text_encoder.host_bytes < 3 * 4 * packed, "four bits a weight, and not sixteen"


def test_a_lora_for_weights_of_four_bits_is_refused(quantised: Path, tmp_path: Path) -> None:
    layer = "transformer.transformer_blocks.0.attn.to_q"
    pair = {f"{layer}.lora_A.weight": torch.ones(4, 32), f"{layer}.lora_B.weight": torch.ones(32, 4)}
    save_file(pair, tmp_path / "lora.safetensors")
    with pytest.raises(errors.ModelUnavailableError, match="4"):
        _quantised(quantised, HERE, tmp_path)
