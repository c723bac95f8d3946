"""Where a model goes on each GPU, as sums of bytes."""

import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel

from bench.placement.architectures import TRANSFORMERS
from storage.contracts import placement
from storage.contracts.catalog import Catalog
from storage.settings import StoreSettings


@pytest.fixture(scope="module")
def known() -> Catalog:
    return StoreSettings().read_catalog()


RESIDENT, STREAMED_TEXT = "bf16, resident", "bf16, resident, text encoder streamed"
EIGHT_BITS_STREAMED_TEXT = "fp8, resident, text encoder streamed"


@pytest.mark.parametrize(
    ("model", "gpu_type", "name", "gb"),
    [
        ("flux-kontext-dev", "rtx-4090", EIGHT_BITS_STREAMED_TEXT, 17.49),
        ("flux-kontext-dev", "l40s", RESIDENT, 37.46),
        ("flux-kontext-dev", "rtx-6000-ada", RESIDENT, 37.46),
        ("flux-kontext-dev", "h100", RESIDENT, 37.46),
        ("flux-kontext-dev", "h200", RESIDENT, 37.46),
        ("flux-2-dev", "rtx-4090", "bf16, streamed", 16.95),
        ("flux-2-dev", "l40s", EIGHT_BITS_STREAMED_TEXT, 46.2),
        ("flux-2-dev", "rtx-6000-ada", EIGHT_BITS_STREAMED_TEXT, 46.2),
        ("flux-2-dev", "h100", STREAMED_TEXT, 77.46),
        ("flux-2-dev", "rtx-pro-6000", STREAMED_TEXT, 77.46),
        ("flux-2-dev", "h200", RESIDENT, 108.22),
        ("flux-2-dev", "b200", RESIDENT, 108.22),
        ("flux-2-dev", "b300", RESIDENT, 108.22),
        ("flux-2-dev-upsampling", "rtx-pro-6000", "fp8, resident", 90.28),
        ("flux-2-dev-upsampling", "h200", RESIDENT, 121.54),
        ("flux-2-klein-4b", "rtx-4090", RESIDENT, 20.86),
        ("flux-2-klein-9b", "rtx-4090", EIGHT_BITS_STREAMED_TEXT, 18.98),
        ("flux-2-klein-9b", "l40s", RESIDENT, 37.7),
    ],
)
def test_the_best_arrangement_that_fits_is_chosen(
    known: Catalog, model: str, gpu_type: str, name: str, gb: float
) -> None:
    found = placement.planned(known.model(model), known.gpu_types[gpu_type])
    assert found is not None
    assert (found.name, found.total_gb) == (name, gb)
    assert found.total_gb <= known.gpu_types[gpu_type].memory_gb


def test_a_text_encoder_that_writes_is_never_streamed(known: Catalog) -> None:
    assert placement.planned(known.model("flux-2-dev-upsampling"), known.gpu_types["h100"]) is None
    told = placement.refusal(known, "flux-2-dev-upsampling", "h100")
    assert told.message == (
        "flux-2-dev-upsampling needs 90.3 GB at the least and h100 has 85.5; the smallest that does is rtx-pro-6000"
    )


def test_a_precision_asked_for_is_kept(known: Catalog) -> None:
    model, l40s = known.model("flux-2-dev"), known.gpu_types["l40s"]
    found = placement.planned(model, l40s, precision="bf16")
    assert found is not None
    assert found.name == "bf16, streamed"


def test_what_fits_nowhere_is_refused_with_the_smallest_gpu_that_does(known: Catalog) -> None:
    tiny = known.gpu_types["rtx-4090"].model_copy(update={"memory_gb": 4})
    with_tiny = known.model_copy(update={"gpu_types": {**known.gpu_types, "tiny": tiny}})
    assert placement.planned(known.model("flux-2-dev"), tiny) is None
    message = placement.refusal(with_tiny, "flux-2-dev", "tiny").message
    assert message == "flux-2-dev needs 16.9 GB at the least and tiny has 4; the smallest that does is rtx-4090"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("flux-kontext-dev", FluxTransformer2DModel),
        ("flux-2-dev", Flux2Transformer2DModel),
        ("flux-2-klein-4b", Flux2Transformer2DModel),
        ("flux-2-klein-9b", Flux2Transformer2DModel),
    ],
)
def test_the_catalogs_bytes_are_those_of_the_architecture(
    known: Catalog, model: str, kind: type[torch.nn.Module]
) -> None:
    with torch.device("meta"):
        transformer = kind(**TRANSFORMERS[model])
    memory = known.model(model).memory
    assert memory is not None
    assert memory.transformer == pytest.approx(_gb(transformer), rel=0.002)
    assert memory.block == pytest.approx(_gb(transformer.transformer_blocks[0]), rel=0.02)  # type: ignore[index, arg-type]


def _gb(part: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in part.parameters()) * 2 / 1e9
