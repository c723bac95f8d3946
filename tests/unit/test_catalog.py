"""The catalog validates itself, requests, and describes both."""

import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

import infra
import storage
from api.dialects.oxen.parameters import edit_of
from storage.contracts import catalog, catalog_files, errors, planning, results
from storage.contracts.geometry import Size
from storage.settings import StoreSettings
from workers.pipelines.base import Job

SHIPPED = Path(storage.__file__).parent / "catalog.toml"
MADE = {
    "weights": "w", "revision": None, "pipeline": "p", "rendered": "8x8", "dtype": "d", "placement": "here", "gpu_type": "cpu",
    "gpu": "CPU", "libraries": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def kontext() -> catalog.Model:
    return StoreSettings().read_catalog().model("flux-kontext-dev")


def test_defaults_are_those_oxen_documents(kontext: catalog.Model) -> None:
    checked = kontext.validate_parameters({"prompt": "x"})
    assert checked == {
        "prompt": "x",
        "aspect_ratio": "16:9",
        "num_inference_steps": 28,
        "guidance": 2.5,
        "seed": None,
        "output_format": "webp",
        "output_quality": 80,
        "disable_safety_checker": False,
        "width": None,
        "height": None,
        "exact_size": False,
        "previews": False,
        "negative_prompt": None,
        "true_guidance": 1,
        "strength": 1,
    }


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("num_inference_steps", 3, "an integer between 4 and 50"),
        ("num_inference_steps", 51, "an integer between 4 and 50"),
        ("num_inference_steps", 4.5, "an integer between 4 and 50"),
        ("num_inference_steps", "28", "an integer between 4 and 50"),
        ("num_inference_steps", True, "an integer between 4 and 50"),
        ("guidance", -0.001, "a finite number between 0 and 10"),
        ("guidance", 10.001, "a finite number between 0 and 10"),
        ("guidance", math.nan, "a finite number between 0 and 10"),
        ("guidance", math.inf, "a finite number between 0 and 10"),
        ("guidance", True, "a finite number between 0 and 10"),
        ("seed", -1, "an integer between 0 and 4294967295"),
        ("seed", 2**32, "an integer between 0 and 4294967295"),
        ("output_quality", -1, "an integer between 0 and 100"),
        ("output_quality", 101, "an integer between 0 and 100"),
        ("output_format", "jpeg", "one of webp, jpg, png"),
        ("aspect_ratio", "16:10", "one of 1:1, 16:9"),
        ("disable_safety_checker", "no", "true or false"),
        ("prompt", 7, "a string"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_field_value_and_range(
    kontext: catalog.Model, field: str, value: Any, allowed: str
) -> None:
    with pytest.raises(errors.InvalidInputError) as refused:
        kontext.validate_parameters({"prompt": "x", field: value})
    assert refused.value.field == field
    assert f"{field} must be {allowed}" in refused.value.message
    assert f"got {value!r}" in refused.value.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_inference_steps", 4),
        ("num_inference_steps", 50),
        ("guidance", 0),
        ("guidance", 10),
        ("seed", 0),
        ("seed", 2**32 - 1),
    ],
)
def test_the_ends_of_a_range_belong_to_it(kontext: catalog.Model, field: str, value: Any) -> None:
    assert kontext.validate_parameters({"prompt": "x", field: value})[field] == value


def test_null_means_the_default(kontext: catalog.Model) -> None:
    assert kontext.validate_parameters({"prompt": "x", "guidance": None})["guidance"] == 2.5


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_an_empty_prompt_is_refused(kontext: catalog.Model, prompt: str) -> None:
    with pytest.raises(errors.InvalidInputError, match="Prompt cannot be empty"):
        kontext.validate_parameters({"prompt": prompt})


def test_a_missing_prompt_is_refused(kontext: catalog.Model) -> None:
    with pytest.raises(errors.InvalidInputError, match="prompt is required"):
        kontext.validate_parameters({})


def test_a_prompt_that_is_too_long_is_refused_without_repeating_it(kontext: catalog.Model) -> None:
    with pytest.raises(errors.InvalidInputError) as refused:
        kontext.validate_parameters({"prompt": "a" * 100_000})
    assert refused.value.message == "prompt may have at most 10000 characters; got 100000"


def test_an_unknown_field_is_refused_by_name(kontext: catalog.Model) -> None:
    with pytest.raises(errors.InvalidInputError, match="num_steps is not a known parameter") as refused:
        kontext.validate_parameters({"prompt": "x", "num_steps": 3})
    assert refused.value.field == "num_steps"


def test_the_served_schema_says_what_validates(kontext: catalog.Model) -> None:
    schema = kontext.request_schema()
    steps = schema["properties"]["num_inference_steps"]
    assert (steps["type"], steps["default"], steps["minimum"], steps["maximum"]) == ("integer", 28, 4, 50)
    assert schema["required"] == ["prompt"]
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(kontext.parameters)


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        (1.0, (1024, 1024)),
        (16 / 9, (1392, 752)),
        (9 / 16, (752, 1392)),
        (4 / 5, (944, 1104)),
        (5 / 4, (1104, 944)),
        (21 / 9, (1568, 672)),
        (9 / 21, (672, 1568)),
        (3 / 2, (1248, 832)),
        (100.0, (1568, 672)),
    ],
)
def test_an_aspect_ratio_becomes_the_nearest_preferred_size(
    kontext: catalog.Model, ratio: float, size: tuple[int, int]
) -> None:
    found = kontext.frame.nearest(ratio)
    assert (found.width, found.height) == size


LAYER = {"count": 1, "gb": 0.1}
MEMORY = {"vae": 0.1, "token_kb": 1, "transformer": {"layers": [LAYER]}, "text_encoder": {"layers": [LAYER]}}
KEEPING = {"source": "x", "name": "x", "licence": "none", "caches_references": True}
WHOLE = {"source": "x", "name": "x", "licence": "none", "whole_text_encoder": True}
UPSAMPLED = {catalog.UPSAMPLING: {"type": "number", "description": "", "minimum": 0, "maximum": 2}}


def _tables(**model: Any) -> list[dict[str, Any]]:
    base = {
        "display_name": "m",
        "summary": "s",
        "developer": "d",
        "pipeline": "kontext",
        "weights": {"source": "x", "name": "x", "licence": "none"},
        "gpu_types": ["cpu"],
        "frame": {"sizes": ["256x256"]},
        "released_at": "2025-01-01",
        "parameters": {},
    }
    return [{"gpu_types": {"cpu": {"display_name": "CPU", "memory_gb": 8}}, "models": {"m": {**base, **model}}}]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"gpu_types": ["h1000"]}, "models.m.gpu_types: 'h1000' is not in gpu_types"),
        ({"pipeline": "sd"}, "models.m.pipeline"),
        ({"typo": 1}, "models.m.typo"),
        (
            {"parameters": {"n": {"type": "integer", "description": "", "default": 9, "maximum": 4}}},
            "models.m.parameters.n",
        ),
        ({"extends": "other"}, "models.m.extends"),
        (
            {"weights": WHOLE, "pipeline": "flux2"},
            "models.m: Value error, parameters.caption_upsample_temperature and weights.whole_text_encoder go together",
        ),
        ({"weights": WHOLE, "parameters": UPSAMPLED}, "weights.whole_text_encoder is for the pipeline flux2"),
        ({"weights": KEEPING, "memory": MEMORY}, "weights.caches_references needs memory.reference_cache_kb"),
    ],
)
def test_a_wrong_catalog_names_table_and_key(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match="catalog: ") as refused:
        catalog_files.merge(_tables(**wrong))
    assert named in str(refused.value)


def test_a_later_file_overrides_single_keys() -> None:
    merged = catalog_files.merge([*_tables(), {"models": {"m": {"weights": {"name": "mine"}}}}])
    assert merged.model("m").weights.name == "mine"
    assert merged.model("m").weights.source == "x"


def test_every_stand_in_says_that_it_is_one() -> None:
    embedded = StoreSettings(catalog=(Path(infra.__file__).parent / "catalog.embedded.toml",)).read_catalog()
    notes = {name: model.weights.note for name, model in embedded.models.items() if model.weights.memory is not None}
    assert len(notes) > 5
    assert [name for name, note in notes.items() if "stand-in" not in (note or "")] == []


def test_what_is_said_of_the_weights_of_a_model_is_not_said_of_a_fine_tunes() -> None:
    stand_in = {"models": {"m": {"weights": {"note": "a stand-in"}}}}
    tuned = {"extends": "m", "weights": {"source": "my/tune"}}
    with_lora = {"extends": "m", "weights": {"lora": "my/lora"}}
    known = catalog_files.merge([*_tables(), stand_in, {"models": {"tuned": tuned, "with-lora": with_lora}}])
    notes = {name: known.models[name].weights.note for name in ("m", "tuned", "with-lora")}
    assert notes == {"m": "a stand-in", "tuned": None, "with-lora": "a stand-in"}


def test_a_fine_tune_extends_a_model() -> None:
    tuned = {"models": {"tuned": {"extends": "m", "weights": {"source": "my/tune"}}}}
    merged = catalog_files.merge([*_tables(), tuned])
    assert merged.model("tuned").weights.source == "my/tune"
    assert merged.model("tuned").frame == merged.model("m").frame
    assert merged.model("m").weights.source == "x"


def test_a_version_is_the_model_but_for_what_it_says() -> None:
    known = StoreSettings().read_catalog()
    assert known.version("black-forest-labs/FLUX.2-dev", "diffusers-fp8") == "flux-2-dev-fp8"
    assert known.version("flux-2-dev-fp8", "diffusers-bf16") == "flux-2-dev"
    smaller = known.model("flux-2-dev-fp8")
    assert (smaller.frame, smaller.aliases) == (known.model("flux-2-dev").frame, ())
    plan = planning.planned(smaller, known.gpu_types["h200"])
    assert plan
    assert plan.transformer.format == "fp8", "though bf16 would fit"


def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    known = StoreSettings().read_catalog()
    with pytest.raises(
        errors.ModelNotFoundError, match=r"must be one of diffusers-bf16, diffusers-fp8, .* for flux-2-dev"
    ):
        known.version("flux-2-dev", "3")


def test_two_versions_of_one_name_stop_the_start() -> None:
    twice = {"models": {name: {"version_of": "m", "version": "2"} for name in ("a", "b")}}
    with pytest.raises(ValueError, match=r"models\.a\.version|'2' is taken"):
        catalog_files.merge([*_tables(), twice])


def test_a_model_without_guidance_has_an_edit_without_it() -> None:
    klein = StoreSettings().read_catalog().model("flux-2-klein-4b")
    assert edit_of("flux-2-klein-4b", klein, {"prompt": "x"}, references=0, masked=False).guidance == 1


LORA_SCALE = {
    "type": "number",
    "default": 1.0,
    "minimum": 0,
    "maximum": 2,
    "description": "How strongly the LoRA works",
}


def _tuned(**changes: object) -> catalog.Catalog:
    table: dict[str, Any] = {"extends": "flux-kontext-dev", "weights": {"lora": "tuned", "name": "tuned", **changes}}
    if "scalable_lora" in changes:
        table["parameters"] = {"lora_scale": LORA_SCALE}
    return catalog_files.merge([tomllib.loads(SHIPPED.read_text()), {"models": {"tuned": table}}])


def test_how_strongly_a_lora_works_is_a_parameter_of_models_that_keep_it_apart() -> None:
    tuned = _tuned(scalable_lora=True).models["tuned"]
    edit = edit_of("tuned", tuned, {"prompt": "x", "lora_scale": 0.5}, references=1, masked=False)
    assert edit.lora_scale == 0.5
    assert Job.of(edit, references=(), mask=None, size=Size(width=8, height=8)).lora_scale == 0.5
    assert results.MadeWith.of(edit, **MADE).lora_scale == 0.5
    with pytest.raises(errors.InvalidInputError, match=r"lora_scale must be a finite number between 0 and 2; got 2\.1"):
        edit_of("tuned", tuned, {"prompt": "x", "lora_scale": 2.1}, references=1, masked=False)
    merged = _tuned().models["tuned"]
    with pytest.raises(errors.InvalidInputError, match="lora_scale is not a known parameter"):
        edit_of("tuned", merged, {"prompt": "x", "lora_scale": 0.5}, references=1, masked=False)


@pytest.mark.parametrize("changes", [{"scalable_lora": True, "lora": None}, {"scalable_lora": False}])
def test_a_scale_without_a_lora_that_is_kept_apart_stops_the_start(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="scalable_lora"):
        _tuned(**changes)


def test_an_operators_names_go_before_shipped_ones() -> None:
    ours = """
[models.flux-kontext-dev]
aliases = ["our-kontext"]

[models.our-style]
version_of = "flux-kontext-dev"
version = "ours"
aliases = ["flux-2-pro"]
weights = { lora = "ours.safetensors" }
"""
    known = catalog_files.merge([tomllib.loads(SHIPPED.read_text()), tomllib.loads(ours)])
    assert known.name_of("our-kontext") == "flux-kontext-dev"
    assert known.name_of("flux-2-pro") == "our-style"
    assert known.name_of("flux-2-max") == "flux-2-dev"
    # The names that it draws under were not kept.
    assert not known.has("flux-kontext-pro")
    assert known.text_to_image == {}


def test_a_name_that_draws_and_is_nobodys_stops_the_start() -> None:
    for wrong in ('nope = "flux-2-dev"', 'flux-kontext-pro = "flux-kontext-dev"', 'flux-kontext-pro = "nope"'):
        ours = tomllib.loads(f"[text_to_image]\n{wrong}\n")
        with pytest.raises(ValueError, match=r"text_to_image"):
            catalog_files.merge([tomllib.loads(SHIPPED.read_text()), ours])


def test_an_empty_name_takes_the_drawing_back() -> None:
    ours = tomllib.loads('[text_to_image]\nflux-kontext-pro = ""\n')
    known = catalog_files.merge([tomllib.loads(SHIPPED.read_text()), ours])
    assert known.drawing("black-forest-labs/flux-kontext-pro") is None
    assert known.drawing("black-forest-labs/flux-kontext-max") == "flux-2-dev"
