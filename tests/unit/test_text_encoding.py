"""The large text encoder on a worker of its own: what each side has, and that the pixels stay the same."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from storage.contracts import planning, plans
from storage.settings import StoreSettings
from tests.unit.test_pipelines import FAMILIES, _job, _load, weights  # noqa: F401  (a fixture)

HERE, ELSEWHERE, ONLY = (dataclasses.replace(plans.RESIDENT, encoding=one) for one in ("here", "elsewhere", "only"))
LARGE = {name: "text_encoder_2" if name == "small-kontext" else "text_encoder" for name in FAMILIES}

everyone = pytest.mark.parametrize("name", list(FAMILIES))


def _parts(pipeline: Any) -> set[str]:
    return {
        name for name in ("transformer", "vae", "text_encoder", "text_encoder_2") if getattr(pipeline.pipe, name, None)
    }


@everyone
def test_the_pixels_are_those_of_a_whole_pipeline(weights: Path, name: str) -> None:  # noqa: F811
    job = _job(prompt="make it blue", negative_prompt="red", true_guidance=2.0) if name == "small-kontext" else _job()
    encoder, rest, whole = (_load(weights, name, plan) for plan in (ONLY, ELSEWHERE, HERE))
    encoded = dataclasses.replace(job, encoded={prompt: encoder.text(prompt) for prompt in ("make it blue", "red")})
    assert rest.edit(encoded, lambda step: None).tobytes() == whole.edit(job, lambda step: None).tobytes()
    assert rest.facts.plan == "bf16, resident, text encoder elsewhere"


@everyone
def test_each_side_has_its_parts_alone(weights: Path, name: str) -> None:  # noqa: F811
    large = LARGE[name]
    beside = {"text_encoder"} - {large}
    if name != "small-kontext":
        beside = set()
    assert _parts(_load(weights, name, ONLY)) == {large}
    assert _parts(_load(weights, name, ELSEWHERE)) == {"transformer", "vae"} | beside


@everyone
def test_an_edit_with_other_encoded_prompts_is_another_picture(weights: Path, name: str) -> None:  # noqa: F811
    encoder, rest = (_load(weights, name, plan) for plan in (ONLY, ELSEWHERE))
    pictures = {
        rest.edit(_job(prompt="a", encoded={"a": encoder.text(text)}), lambda step: None).tobytes()
        for text in ("make it blue", "make it red")
    }
    assert len(pictures) == 2, "nothing is remembered by the prompt alone"


@everyone
def test_both_sides_warm_up_and_remember_nothing_of_it(weights: Path, name: str) -> None:  # noqa: F811
    encoder, rest = (_load(weights, name, plan) for plan in (ONLY, ELSEWHERE))
    unread = _job(prompt="")
    encoder.warm_up(unread)
    rest.warm_up(unread)
    after = rest.edit(_job(prompt="", encoded={"": encoder.text("")}), lambda step: None)
    assert after.tobytes() == _load(weights, name).edit(unread, lambda step: None).tobytes()


PUBLISHED = StoreSettings().read_catalog()


@pytest.mark.parametrize(
    ("model", "gpu_type", "here", "either"),
    [
        ("flux-2-dev", "h100", "bf16, resident, text encoder streamed", "bf16, resident, text encoder elsewhere"),
        ("flux-2-dev", "h200", "bf16, resident", "bf16, resident"),
        ("flux-kontext-dev", "h100", "bf16, resident", "bf16, resident"),
    ],
)
def test_a_plan_does_without_the_text_encoder_where_that_saves_streaming(
    model: str, gpu_type: str, here: str, either: str
) -> None:
    gpu, wanted = PUBLISHED.gpu_types[gpu_type], PUBLISHED.model(model)
    assert _name(planning.planned(wanted, gpu)) == here
    assert _name(planning.planned(wanted, gpu, encoding="either")) == either
    assert _name(planning.planned(wanted, gpu, encoding="elsewhere")).endswith("text encoder elsewhere")


def test_fewer_layers_are_streamed_without_the_text_encoder() -> None:
    gpu, model = PUBLISHED.gpu_types["rtx-4090"], PUBLISHED.model("flux-kontext-dev")
    here, either = planning.planned(model, gpu), planning.planned(model, gpu, encoding="either")
    assert here
    assert either
    assert either.transformer.streamed <= here.transformer.streamed
    assert either.phases.host < here.phases.host


def test_a_worker_of_text_encoders_needs_room_for_them_alone() -> None:
    gpu, model = PUBLISHED.gpu_types["l40s"], PUBLISHED.model("flux-2-dev")
    plan = planning.planned(model, gpu, encoding="only")
    assert plan is not None
    assert plan.name == "text encoder alone"
    memory = model.memory
    assert memory is not None
    layers = sum(layer.count * layer.gb for layer in memory.text_encoder.layers)
    assert plan.phases.resting == pytest.approx(memory.text_encoder.outside + layers)
    small = planning.planned(model, PUBLISHED.gpu_types["rtx-4090"], encoding="only")
    assert small is not None
    assert small.name == "text encoder alone, text encoder streamed"


def test_clip_stays_beside_the_transformer_and_is_counted_there() -> None:
    gpu, model = PUBLISHED.gpu_types["h100"], PUBLISHED.model("flux-kontext-dev")
    whole, rest, alone = (planning.planned(model, gpu, encoding=one) for one in ("here", "elsewhere", "only"))
    assert whole
    assert rest
    assert alone
    assert model.memory
    assert rest.phases.resting + alone.phases.resting == pytest.approx(whole.phases.resting)
    t5 = 24 * 0.3859 + 0.263
    assert alone.phases.resting == pytest.approx(t5, abs=0.01)


def test_a_model_whose_text_encoder_writes_prompts_keeps_it() -> None:
    gpu = PUBLISHED.gpu_types["h100"]
    (model,) = [one for one in PUBLISHED.models.values() if one.weights.whole_text_encoder][:1]
    assert list(planning.ladder(model, gpu, encoding="either")) == list(planning.ladder(model, gpu))
    assert planning.planned(model, gpu, encoding="only") is None


def _name(plan: plans.Plan | None) -> str:
    assert plan is not None
    return plan.name
