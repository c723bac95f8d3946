"""How a model runs on each GPU: the plan that is chosen, and the sums it is chosen by."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from bench.architectures import TRANSFORMERS
from bench.plans import __main__ as counted
from bench.plans import counting, models
from infra import embedded
from storage.contracts import errors, planning, plans
from storage.contracts.catalog import Catalog
from storage.settings import StoreSettings


@pytest.fixture(scope="module")
def known() -> Catalog:
    return StoreSettings().read_catalog()


TABLE = Path(__file__).with_name("plans.tsv")
"""Model, GPU type, plan, GB on the GPU at the most and of host memory. `python -m tests.unit.test_plans` writes it anew."""


def _rows(known: Catalog) -> list[str]:
    rows = ["model\tgpu_type\tplan\tpeak_gb\thost_gb"]
    for name, model in known.models.items():
        for gpu_type, gpu in known.gpu_types.items():
            plan = planning.planned(model, gpu)
            found = (plan.name, f"{plan.peak_gb:.2f}", f"{plan.phases.host:.1f}") if plan else ("none fits", "", "")
            rows.append("\t".join((name, gpu_type, *found)))
    return rows


def test_the_best_plan_that_fits_is_chosen_for_every_model_on_every_gpu_type(known: Catalog) -> None:
    assert _rows(known) == TABLE.read_text().splitlines()


def test_what_the_catalog_lists_fits(known: Catalog) -> None:
    for name, model in known.models.items():
        for gpu_type in model.gpu_types:
            assert planning.planned(model, known.gpu_types[gpu_type]), (name, gpu_type)


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_the_catalogs_bytes_are_counted_from_the_architectures(known: Catalog, model: str) -> None:
    memory = known.model(model).memory
    assert memory is not None
    transformer, encoders = models.transformer(model), list(models.text_encoders(model).values())
    for listed, part, more in (
        (memory.transformer, transformer, 0.0),
        (memory.text_encoder, encoders[-1], sum(counting.weights_gb(small) for small in encoders[:-1])),
    ):
        layers = counting.layers(part)
        assert [layer.count for layer in listed.layers] == [layer["count"] for layer in layers]
        assert [layer.gb for layer in listed.layers] == pytest.approx([layer["gb"] for layer in layers], rel=0.002)
        assert listed.outside == pytest.approx(counting.outside_gb(part) + more, abs=0.003)
    quantised = [layer["quantised"] for layer in counting.layers(transformer)]
    assert [layer.quantised for layer in memory.transformer.layers] == pytest.approx(quantised, rel=0.002)
    assert memory.vae == pytest.approx(counting.weights_gb(models.autoencoder(model)), abs=0.002)


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_the_catalogs_activations_are_counted_from_the_architectures(known: Catalog, model: str) -> None:
    memory = known.model(model).memory
    assert memory is not None
    assert memory.token_kb == pytest.approx(counted.token_kb(model), rel=0.01)
    counts = counted.picture_kb(model)
    assert (memory.encode_kb_per_pixel, memory.decode_kb_per_pixel) == pytest.approx(counts, rel=0.01)


def test_references_that_are_kept_are_counted_where_the_weights_keep_them(known: Catalog) -> None:
    plain, gpu = known.model("flux-2-klein-9b"), known.gpu_types["h200"]
    assert plain.memory is not None
    per_token = counted.reference_cache_kb(models.transformer("flux-2-klein-9b"))
    assert plain.memory.reference_cache_kb == pytest.approx(per_token, rel=0.001)
    keeping = plain.model_copy(update={"weights": plain.weights.model_copy(update={"caches_references": True})})
    without, kept = (planning.planned(model, gpu) for model in (plain, keeping))
    assert without is not None
    assert kept is not None
    keys_and_values = 524.3e-6 * 4 * 4150
    modulations = 10 * 2 * 4096e-9 * (4_194_304 / 256 + 4 * 4150)
    assert kept.phases.denoise - without.phases.denoise == pytest.approx(keys_and_values + modulations, rel=0.001)
    assert dataclasses.replace(kept.phases, denoise=0) == dataclasses.replace(without.phases, denoise=0)


def test_an_fp8_transformer_keeps_its_modulations_in_bf16(known: Catalog) -> None:
    """FLUX.1's are a quarter of its weights: it shrinks to 0.64, FLUX.2 to 0.51 of its bytes."""
    for model, share in (("flux-kontext-dev", 0.64), ("flux-2-dev", 0.513)):
        h200 = known.gpu_types["h200"]
        exact, fast = (
            planning.planned(known.models[known.profiled(model, profile)], h200) for profile in ("exact", "fast")
        )
        assert exact is not None
        assert fast is not None
        memory = known.model(model).memory
        assert memory is not None
        bf16 = sum(layer.count * layer.gb for layer in memory.transformer.layers) + memory.transformer.outside
        assert 1 - (exact.phases.resting - fast.phases.resting) / bf16 == pytest.approx(share, abs=0.002)


def test_phases_that_never_coincide_are_not_added(known: Catalog) -> None:
    plan = planning.planned(known.model("flux-2-dev"), known.gpu_types["h100"])
    assert plan is not None
    phases = plan.phases
    # Two layers of the text encoder pass through while the prompt is encoded, and are gone before the first step.
    assert phases.encode - phases.resting == pytest.approx(2 * 1.1115 + 0.4)
    assert phases.denoise - phases.resting == pytest.approx(260.4e-6 * (512 + 4_194_304 / 256 + 8 * 4150))
    assert plan.peak_gb == pytest.approx(phases.denoise + plans.CONTEXT_GB, abs=0.01)


def test_a_smaller_edit_needs_less(known: Catalog) -> None:
    model, gpu = known.model("flux-2-dev"), known.gpu_types["h100"]
    peaks = [
        planning.planned(model, gpu, workload=plans.Workload(pixels=2**20, references=references)).phases.denoise  # type: ignore[union-attr]
        for references in (0, 1, 3)
    ]
    assert [after - before for before, after in itertools.pairwise(peaks)] == pytest.approx([1.08, 2.16], abs=0.01)


def test_streamed_layers_are_spread_evenly() -> None:
    assert plans.PartPlan(layers=12, streamed=4).streamed_layers == (0, 3, 6, 9)
    assert plans.PartPlan(layers=3, streamed=3).streamed_layers == (0, 1, 2)
    assert plans.PartPlan(layers=57).streamed_layers == ()
    for streamed in range(1, 58):
        assert len(set(plans.PartPlan(layers=57, streamed=streamed).streamed_layers)) == streamed


def test_what_a_machine_cannot_keep_in_its_memory_is_refused_with_the_sum(known: Catalog) -> None:
    model, gpu = known.model("flux-2-dev"), known.gpu_types["rtx-4090"]
    assert planning.planned(model, gpu, host_gb=128) == planning.planned(model, gpu)
    assert planning.planned(model, gpu, host_gb=64) is None
    told = planning.refusal(known, "flux-2-dev", "rtx-4090", host_gb=64)
    assert told.message.startswith("flux-2-dev on rtx-4090 needs 98.2 GB of the machine's memory for streamed layers")


def test_cards_that_do_not_multiply_fp8_are_not_asked_to(known: Catalog) -> None:
    ampere = known.gpu_types["l40s"].model_copy(update={"capability": 8.6})
    with_ampere = known.model_copy(update={"gpu_types": {**known.gpu_types, "a40": ampere}})
    assert planning.planned(known.model("flux-2-dev-fp8"), ampere) is None
    told = planning.refusal(with_ampere, "flux-2-dev-fp8", "a40").message
    assert told == "flux-2-dev-fp8 multiplies in fp8, for which compute capability 8.9 is needed; a40 has 8.6"
    assert planning.planned(known.model("flux-2-dev"), ampere) is not None


def test_a_text_encoder_that_writes_prompts_is_never_streamed(known: Catalog) -> None:
    upsampling = known.model("flux-2-dev-upsampling")
    assert not any(plan.text_encoder.streamed for plan in planning.ladder(upsampling, known.gpu_types["h100"]))


def test_each_step_down_needs_less_until_there_is_none(known: Catalog) -> None:
    for model in known.models.values():
        gpu = known.gpu_types["h200"]
        plan = planning.planned(model, gpu)
        seen = []
        while plan is not None:
            seen.append(plan.peak_gb)
            assert len(seen) < 100
            plan = planning.below(plan, model, gpu)
        assert all(after <= 0.95 * before for before, after in itertools.pairwise(seen)), model.display_name


def test_a_plan_that_learnt_not_to_compile_steps_down_like_any_other(known: Catalog) -> None:
    model, gpu = known.model("flux-kontext-dev"), known.gpu_types["h200"]
    plan = planning.planned(model, gpu)
    assert plan is not None
    eager = dataclasses.replace(plan, compiled=False)
    assert planning.below(eager, model, gpu) == planning.below(plan, model, gpu)


def test_models_on_one_gpu_add_what_rests_and_work_one_at_a_time(known: Catalog) -> None:
    klein = planning.planned(known.model("flux-2-klein-4b"), known.gpu_types["h100"])
    kontext = planning.planned(known.model("flux-kontext-dev"), known.gpu_types["h100"])
    assert klein is not None
    assert kontext is not None
    together = planning.total_gb([klein, kontext])
    working = max(klein.phases.working, kontext.phases.working)
    assert together == pytest.approx(klein.phases.resting + kontext.phases.resting + working + plans.CONTEXT_GB)
    assert planning.total_gb([klein]) == pytest.approx(klein.peak_gb, abs=0.01)


def test_what_fits_nowhere_is_refused_with_the_smallest_gpu_that_does(known: Catalog) -> None:
    tiny = known.gpu_types["rtx-4090"].model_copy(update={"memory_gb": 4})
    with_tiny = known.model_copy(update={"gpu_types": {**known.gpu_types, "tiny": tiny}})
    message = planning.refusal(with_tiny, "flux-2-dev", "tiny").message
    assert message.endswith("and there are 4; the smallest GPU that it fits is rtx-4090")


def test_a_profile_is_a_version_of_its_model(known: Catalog) -> None:
    assert known.profiled("flux-2-dev", "fast") == "flux-2-dev-fp8"
    assert known.profiled("flux-2-dev", "exact") == "flux-2-dev"
    assert known.profiled("flux-kontext-dev", "fast") == "flux-kontext-dev-fast"
    assert known.profiled("flux-kontext-dev-fast", "exact") == "flux-kontext-dev"
    with pytest.raises(errors.InvalidInputError, match="profile must be one of exact for flux-2-klein-4b; got 'fast'"):
        known.profiled("flux-2-klein-4b", "fast")


def test_a_stand_in_is_told_from_the_weights_it_stands_in_for() -> None:
    shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
    stand_ins = StoreSettings(catalog=(shipped,)).read_catalog()
    model = stand_ins.model("flux-2-dev")
    loaded, published = (planning.planned(one, stand_ins.gpu_types["h200"]) for one in (model, model.published))
    assert loaded is not None
    assert published is not None
    assert loaded.phases.resting < 0.1
    assert published.phases.resting == pytest.approx(99.3, abs=0.1)


if __name__ == "__main__":
    TABLE.write_text("\n".join(_rows(StoreSettings().read_catalog())) + "\n")
