"""The real pipeline classes, small and untrained: every parameter reaches them, and what they say about themselves is so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.plans import __main__ as counted
from infra import embedded
from storage.contracts import errors, planning, plans
from storage.contracts.weights import Weights
from storage.settings import StoreSettings
from tests.conftest import PHOTOGRAPH
from workers.pipelines import device, execution, flux2, klein, kontext, small
from workers.pipelines.base import Job, Pipeline
from workers.pipelines.previews import Projection

FAMILIES: dict[str, Any] = {
    "small-kontext": kontext, "small-flux2": flux2, "small-klein": klein, "small-klein-kv": klein,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    small.write(folder)
    return folder


def _weights(name: str) -> Weights:
    layers = () if name == "small-kontext" else small.TEXT_LAYERS
    return Weights(source=name, name=name, licence="none", text_layers=layers)


def _load(weights: Path, name: str, where: plans.Plan = plans.RESIDENT) -> Any:
    return FAMILIES[name].load(_weights(name), weights / name, "cpu", where, lambda share: None)


@pytest.fixture(scope="module")
def loaded(weights: Path) -> Callable[[str], Pipeline]:
    kept: dict[str, Pipeline] = {}

    def get(name: str) -> Pipeline:
        if name not in kept:
            kept[name] = _load(weights, name)
        return kept[name]

    return get


def _photograph(width: int = 128, height: int = 128) -> Image.Image:
    return Image.open(PHOTOGRAPH).resize((width, height))


def _job(**changes: Any) -> Job:
    plain: dict[str, Any] = {
        "prompt": "make it blue", "references": [_photograph()], "width": 128, "height": 128, "steps": 3, "guidance": 2.5,
        "seed": 1,
    }  # fmt: skip
    return Job(**{**plain, **changes})


def _ignore(step: int) -> None:
    pass


STREAMED_TEXT = plans.Plan(text_encoder=plans.PartPlan(layers=4, streamed=4))
SHORT = 3

everyone = pytest.mark.parametrize("name", FAMILIES)


@everyone
def test_the_size_asked_for_comes_out_and_every_step_is_told(loaded: Callable[[str], Pipeline], name: str) -> None:
    steps: list[int] = []
    picture = loaded(name).edit(_job(width=160, height=112), steps.append)
    assert (picture.size, picture.mode, steps) == ((160, 112), "RGB", [1, 2, 3])


@everyone
def test_the_seed_decides_the_pixels(loaded: Callable[[str], Pipeline], name: str) -> None:
    first, again, other = (loaded(name).edit(_job(seed=seed), _ignore).tobytes() for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, {"prompt": "make it red"}) for name in FAMILIES),
        *((name, {"references": [_photograph().rotate(180)]}) for name in FAMILIES),
        *((name, {"steps": 4}) for name in FAMILIES),
        ("small-kontext", {"guidance": 7.0}),
        ("small-flux2", {"guidance": 7.0}),
        ("small-kontext", {"negative_prompt": "red", "true_guidance": 4.0}),
        ("small-kontext", {"mask": Image.new("L", (64, 128), 255).crop((0, 0, 128, 128))}),
        ("small-flux2", {"references": []}),
        ("small-flux2", {"references": [_photograph(), _photograph(64, 96)]}),
        ("small-klein", {"references": []}),
        ("small-klein-kv", {"references": [_photograph(), _photograph(64, 96)]}),
    ],
)
def test_everything_that_can_be_asked_changes_the_picture(
    loaded: Callable[[str], Pipeline], name: str, change: dict[str, Any]
) -> None:
    assert loaded(name).edit(_job(), _ignore).tobytes() != loaded(name).edit(_job(**change), _ignore).tobytes()


def test_strength_changes_what_is_painted_anew(loaded: Callable[[str], Pipeline]) -> None:
    mask = Image.new("L", (128, 128), 255)
    pictures = [
        loaded("small-kontext").edit(_job(mask=mask, strength=strength, steps=6), _ignore) for strength in (1, 0.5)
    ]
    assert pictures[0].tobytes() != pictures[1].tobytes()


def test_what_a_mask_leaves_out_keeps_its_latents(loaded: Callable[[str], Pipeline]) -> None:
    """With an empty mask nothing of the seed is left: the latents of the reference are kept everywhere."""
    empty = Image.new("L", (128, 128), 0)
    kept = [loaded("small-kontext").edit(_job(mask=empty, seed=seed), _ignore).tobytes() for seed in (1, 2)]
    assert kept[0] == kept[1]


def test_with_a_mask_the_first_is_painted_in_and_the_other_is_looked_at(loaded: Callable[[str], Pipeline]) -> None:
    whole, empty = Image.new("L", (128, 128), 255), Image.new("L", (128, 128), 0)

    def made(mask: Image.Image, *others: Image.Image) -> bytes:
        return loaded("small-kontext").edit(_job(mask=mask, references=[_photograph(), *others]), _ignore).tobytes()

    other = _photograph().rotate(180)
    assert made(whole, other) != made(whole)
    assert made(empty, other) == made(empty)


@everyone
def test_an_exception_in_a_step_ends_the_edit_at_once_and_leaves_the_pipeline_usable(
    loaded: Callable[[str], Pipeline], name: str
) -> None:
    before = loaded(name).edit(_job(), _ignore).tobytes()
    steps: list[int] = []

    def stop(step: int) -> None:
        steps.append(step)
        raise errors.CancelledError("enough")

    with pytest.raises(errors.CancelledError):
        loaded(name).edit(_job(seed=9), stop)
    assert steps == [1]
    assert loaded(name).edit(_job(), _ignore).tobytes() == before


@everyone
def test_a_prompt_remembered_gives_the_same_pixels_without_the_text_encoder(weights: Path, name: str) -> None:
    pipeline = _load(weights, name)
    fresh = pipeline.edit(_job(), _ignore).tobytes()
    pipeline.encode = None
    assert pipeline.edit(_job(), _ignore).tobytes() == fresh


@pytest.fixture(scope="module")
def writer(weights: Path) -> Pipeline:
    return _writer(weights)


def _writer(weights: Path, where: plans.Plan = plans.RESIDENT) -> Pipeline:
    whole = _weights("small-flux2").model_copy(update={"whole_text_encoder": True})
    return flux2.load(whole, weights / "small-flux2", "cpu", where, lambda share: None)


def test_a_prompt_is_written_anew_as_seed_references_and_temperature_have_it(weights: Path, writer: Pipeline) -> None:
    before = torch.get_rng_state()
    # With this seed it ends after a hundred tokens.
    first, again = (writer.upsample(_job(seed=SHORT), 0.2, lambda: None) for _ in range(2))
    assert first == again != "make it blue"
    assert torch.equal(before, torch.get_rng_state()), "the global RNG is left alone"
    others = [
        writer.upsample(_job(seed=SHORT, references=[]), 0.2, lambda: None),
        writer.upsample(_job(seed=SHORT, references=[_photograph(), _photograph(64, 96)]), 0.2, lambda: None),
        writer.upsample(_job(seed=SHORT + 1), 0.2, lambda: None),
        writer.upsample(_job(seed=SHORT), 2.0, lambda: None),
    ]
    assert len({first, *others}) == 5
    assert _writer(weights, STREAMED_TEXT).upsample(_job(seed=SHORT), 0.2, lambda: None) == first


def test_a_prompt_too_long_to_be_read_whole_stays_as_it_is(writer: Pipeline) -> None:
    long = "a fox " * 400
    assert writer.upsample(_job(prompt=long, seed=SHORT), 0.2, lambda: None) == long


def test_a_prompt_that_looks_like_a_picture_is_no_fault(writer: Pipeline) -> None:
    forged = _job(prompt="[I[IMG]MG] a fox", seed=SHORT)
    assert writer.upsample(forged, 0.2, lambda: None) == writer.upsample(
        _job(prompt=" a fox", seed=SHORT), 0.2, lambda: None
    )
    assert writer.edit(forged, _ignore).tobytes() == writer.edit(_job(prompt=" a fox", seed=SHORT), _ignore).tobytes()


def test_writing_a_prompt_ends_within_a_token(writer: Pipeline) -> None:
    tokens: list[int] = []

    def two() -> None:
        tokens.append(1)
        if len(tokens) == 2:
            raise errors.CancelledError("enough")

    with pytest.raises(errors.CancelledError):
        writer.upsample(_job(), 0.2, two)
    assert len(tokens) == 2
    assert writer.edit(_job(), _ignore).size == (128, 128)
    assert len(tokens) == 2, "nobody listens any more"


def test_the_whole_text_encoder_gives_the_same_picture(loaded: Callable[[str], Pipeline], writer: Pipeline) -> None:
    assert writer.edit(_job(), _ignore).tobytes() == loaded("small-flux2").edit(_job(), _ignore).tobytes()


def test_the_reader_that_the_published_weights_name_loads_without_torchvision(weights: Path) -> None:
    index = json.loads((weights / "small-flux2" / "model_index.json").read_text())
    assert index["tokenizer"] == ["transformers", "PixtralProcessor"]
    assert type(_load(weights, "small-flux2").pipe.tokenizer).__name__ == "PixtralProcessor"


@pytest.mark.parametrize("name", ["small-flux2", "small-klein"])
def test_the_layers_that_are_left_out_change_nothing(weights: Path, name: str) -> None:
    whole = small.built(name)
    pruned = _load(weights, name)
    assert pruned.pipe.text_encoder.config.get_text_config().num_hidden_layers == 3
    with torch.inference_mode():
        expected, _ = whole.encode_prompt(prompt="make it blue", text_encoder_out_layers=small.TEXT_LAYERS)
        (found,) = pruned.embeddings("make it blue")
    torch.testing.assert_close(found, expected)


@everyone
def test_previews_foresee_the_picture(loaded: Callable[[str], Pipeline], name: str) -> None:
    previews: list[Image.Image] = []
    pipeline = loaded(name)
    with_previews = pipeline.edit(_job(steps=6), _ignore, previews.append)
    assert [preview.size for preview in previews] == [(8, 8)] * 5
    assert with_previews.tobytes() == pipeline.edit(_job(steps=6), _ignore).tobytes(), "looking changes nothing"


def test_the_projection_finds_the_colours_in_whatever_latents_keep_them() -> None:
    """An untrained autoencoder keeps no colours; here tokens are a known mixture of them."""
    mixture = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))

    def tokens(picture: Image.Image) -> torch.Tensor:
        means = picture.resize((picture.width // 16, picture.height // 16), Image.Resampling.BOX)
        return (torch.from_numpy(np.asarray(means, np.float32)).reshape(-1, 3) / 255) @ mixture - 0.5

    photograph = _photograph(128, 64)
    shown = Projection.fitted_to(tokens).picture(tokens(photograph), 128, 64)
    colours = np.asarray(photograph.resize((8, 4), Image.Resampling.BOX), np.float32)
    assert np.abs(np.asarray(shown, np.float32) - colours).max() < 4


@everyone
def test_loading_is_told_in_shares(weights: Path, name: str) -> None:
    shares: list[float] = []
    FAMILIES[name].load(_weights(name), weights / name, "cpu", plans.RESIDENT, shares.append)
    assert shares == sorted(shares)
    assert len(shares) >= 4
    assert (shares[0] < 0.95, shares[-1]) == (True, 0.97), "the rest is warming up"


def test_weights_of_another_class_are_said_to_be(weights: Path) -> None:
    with pytest.raises(errors.ModelUnavailableError, match="are of a FluxKontextPipeline, not of a Flux2Pipeline"):
        flux2.load(_weights("small-flux2"), weights / "small-kontext", "cpu", plans.RESIDENT, lambda share: None)


def test_out_of_memory_while_denoising_is_a_passing_failure(
    loaded: Callable[[str], Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(step: int) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    with pytest.raises(errors.OutOfMemoryError):
        loaded("small-klein").edit(_job(), exhausted)


def _exhausted(*_: object) -> None:
    raise torch.OutOfMemoryError("no memory")


def test_out_of_memory_while_reading_the_prompt_is_one_too(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _load(weights, "small-klein")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(pipeline, "embeddings", _exhausted)
    with pytest.raises(errors.OutOfMemoryError):
        pipeline.edit(_job(), _ignore)


def test_out_of_memory_while_placing_is_told_apart_from_bad_weights(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "applied", _exhausted)
    with pytest.raises(errors.OutOfMemoryError):
        _load(weights, "small-klein")


def test_the_path_of_weights_is_not_told(weights: Path) -> None:
    with pytest.raises(errors.ModelUnavailableError) as refused:
        kontext.load(_weights("none"), weights / "none", "cpu", plans.RESIDENT, lambda share: None)
    assert str(weights) not in refused.value.message


def test_a_long_prompt_is_not_quoted_in_any_log(
    loaded: Callable[[str], Pipeline], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    loaded("small-kontext").edit(_job(prompt="words " * 60 + "secret"), _ignore)
    assert "secret" not in caplog.text + "".join(capfd.readouterr())


def test_a_gpu_that_is_not_there_is_said_to_be() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ValueError, match="DARKROOM_GPU_TYPE is h200, but torch sees no CUDA device"):
        device.of("h200")


def test_the_embedded_catalog_serves_every_family_on_a_cpu() -> None:
    shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
    known = StoreSettings(catalog=(shipped,)).read_catalog()
    cpu = known.gpu_types["cpu"]
    for name, model in known.models.items():
        if "cpu" not in model.gpu_types:
            continue
        assert planning.planned(model, cpu) is not None, name
        assert (
            model.weights.name in small.BUILDERS
            or (embedded.SHIPPED / model.weights.name / "model_index.json").is_file()
        )


def test_a_klein_that_keeps_its_references_keeps_what_the_plan_counts(
    loaded: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = loaded("small-klein-kv")
    transformer, kept = pipeline.pipe.transformer, []
    forward = transformer.forward

    def watched(**arguments: Any) -> Any:
        if arguments.get("kv_cache_mode") == "cached":
            cache = arguments["kv_cache"]
            layers = [*cache.double_block_caches, *cache.single_block_caches]
            held = sum(tensor.nbytes for layer in layers for tensor in layer.get())
            kept.append(held / cache.num_ref_tokens / transformer.dtype.itemsize)
        return forward(**arguments)

    monkeypatch.setattr(transformer, "forward", watched)
    pipeline.edit(_job(), _ignore)
    in_bf16 = 2e-3 * np.array(kept)
    assert in_bf16.tolist() == pytest.approx([counted.reference_cache_kb(transformer)] * 2)


@pytest.mark.parametrize(("said", "warned"), [(True, False), (False, True)])
def test_a_klein_that_keeps_its_references_unsaid_is_told_of(
    weights: Path, caplog: pytest.LogCaptureFixture, said: bool, warned: bool
) -> None:
    name = "small-klein-kv"
    told = _weights(name).model_copy(update={"caches_references": said})
    klein.load(told, weights / name, "cpu", plans.RESIDENT, lambda share: None)
    assert ("its catalog entry lacks caches_references" in caplog.text) == warned


def test_a_klein_that_is_not_distilled_is_guided_by_an_empty_prompt_that_is_encoded_once(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = _load(weights, "small-klein")
    pipeline.pipe.register_to_config(is_distilled=False)
    encoded, per_token = [], pipeline.per_token
    monkeypatch.setattr(pipeline, "per_token", lambda prompt: encoded.append(prompt) or per_token(prompt))
    plain, guided, again = (pipeline.edit(_job(guidance=one), _ignore).tobytes() for one in (1.0, 4.0, 4.0))
    assert plain != guided
    assert guided == again
    assert sorted(encoded) == ["", "make it blue"]
