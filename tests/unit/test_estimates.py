"""What is expected is taken from what was measured, and says so."""

import random

import pytest

from api.service.budgets import Budgets
from api.service.forecast import ask_of
from storage.contracts import estimates, samples
from storage.contracts.geometry import Canvas, Size
from storage.settings import StoreSettings
from tests.stores.conftest import an_edit

KNOWN = StoreSettings().read_catalog()
ASK = estimates.Ask(pixels=2**20, steps=28, references=1)


def ran(execute_ms: int, **changes: object) -> samples.Sample:
    values = {
        "at_ms": 1,
        "outcome": "succeeded",
        "pixels": 2**20,
        "steps": 28,
        "references": 1,
        "execute_ms": execute_ms,
    }
    return samples.Sample.model_validate({**values, **changes})


def test_runs_of_the_same_kind_are_taken_alone_once_there_are_enough() -> None:
    found = estimates.estimated([ran(ms) for ms in (100, 110, 120, 130, 140)] + [ran(9000, steps=50)], ASK)
    assert found
    assert (found.p50, found.runs, found.basis) == (120, 5, "measured")
    assert found.sentence == "p50 0.12 s, p90 0.148 s from 5 runs at this size and step count"


@pytest.mark.parametrize(
    ("changes", "times"),
    [({"steps": 14}, 2.0), ({"pixels": 2**19}, 2.0), ({"references": 0}, 2.0), ({"steps": 56}, 0.5)],
)
def test_other_runs_are_scaled_by_steps_size_and_references_and_that_is_said(
    changes: dict[str, object], times: float
) -> None:
    found = estimates.estimated([ran(100, **changes)], ASK)
    assert found
    assert (found.p50, found.basis) == (pytest.approx(100 * times), "scaled")
    assert "scaled" in found.sentence
    assert found.p10 < found.p50 < found.p90, "a range that was not measured is wider"


def test_the_nearest_runs_are_scaled_not_all() -> None:
    near = [ran(100, steps=27) for _ in range(estimates.NEAREST)]
    found = estimates.estimated([*near, *(ran(10**6, steps=1) for _ in range(100))], ASK)
    assert found
    assert found.p90 < 200


def test_runs_that_wrote_their_prompts_anew_are_kept_apart() -> None:
    asked = estimates.Ask(pixels=ASK.pixels, steps=ASK.steps, references=ASK.references, upsampled=True)
    plain, written = [ran(100) for _ in range(9)], [ran(700, upsampled=True, steps=14)]
    found, without = (estimates.estimated([*plain, *written], ask) for ask in (asked, ASK))
    assert found
    assert (found.p50, found.runs, found.basis) == (pytest.approx(1400), 1, "scaled")
    assert without
    assert (without.p50, without.basis) == (100, "measured")


def test_nothing_is_expected_where_nothing_has_run() -> None:
    assert estimates.estimated([], ASK) is None
    assert estimates.estimated([ran(1, outcome="out_of_memory")], ASK) is None


def test_the_range_holds_most_of_what_then_happens() -> None:
    chance = random.Random(5)
    within = 0
    for _ in range(400):
        times = [round(1000 * chance.lognormvariate(0, 0.1)) for _ in range(51)]
        found = estimates.estimated([ran(ms) for ms in times[:50]], ASK)
        assert found
        within += found.p10 <= times[50] <= found.p90
    assert within >= 0.8 * 400


def test_what_is_run_twice_or_in_part_counts_so() -> None:
    plain = an_edit(steps=20)
    assert [one.passes for one in (plain, an_edit(steps=20, true_guidance=2.5, negative_prompt="red"))] == [20, 40]
    mask = {"kind": "stored", "key": "m"}
    assert an_edit(steps=20, mask=mask, strength=0.3).passes == 6


def test_large_canvases_and_stitched_references_are_asked_for_as_they_are_rendered() -> None:
    kontext, flux2 = KNOWN.models["flux-kontext-dev"], KNOWN.models["flux-2-dev"]
    assert ask_of(kontext, Canvas(pixels=2**21), 28, 4, upsampled=False) == estimates.Ask(
        pixels=2**21, steps=28, references=1
    )
    assert ask_of(flux2, Canvas(size=Size(width=512, height=512)), 28, 4, upsampled=False).references == 4
    budgets = Budgets({"alice": 1.0}, KNOWN)
    whole = budgets.liability(an_edit(model="flux-kontext-dev"), ("h100",), 600)
    assert whole == budgets.liability(an_edit(model="flux-kontext-dev", canvas={"as_input": True}), ("h100",), 600)


def test_a_price_is_by_picture_or_megapixel_or_else_by_the_gpus_second() -> None:
    model, gpu = KNOWN.models["flux-kontext-dev"], KNOWN.gpu_types["h200"].model_copy(update={"price_per_hour": 3.6})
    assert estimates.price_usd(model, gpu, pixels=2**20, seconds=20) == pytest.approx(0.02)
    by_picture = model.model_copy(update={"price_per_image": 0.03, "price_per_megapixel": 0.01})
    assert estimates.price_usd(by_picture, gpu, pixels=2**21, seconds=20) == pytest.approx(0.05)


def test_statistics_tell_failures_from_successes() -> None:
    runs = [ran(100), ran(300, load_ms=5000, peak_gb=40.5, placement="bf16, resident"), ran(0, outcome="out_of_memory")]
    found = samples.statistics_of(runs)
    assert found.success_rate == pytest.approx(2 / 3)
    assert (found.failures, found.peak_gb, found.placements) == ({"out_of_memory": 1}, 40.5, ("", "bf16, resident"))
    assert found.cold_start
    assert (found.cold_start.p50, found.cold_start.count) == (5000, 1)
    assert samples.statistics_of([]).success_rate is None


@pytest.mark.parametrize(("share", "value"), [(0.001, 1), (0.5, 50.5), (0.999, 100)])
def test_quantiles_are_interpolated(share: float, value: float) -> None:
    assert samples.quantile(range(1, 101), share) == pytest.approx(value, abs=0.2)
    assert samples.quantile([7], share) == 7


def test_a_newer_releases_samples_are_read_as_far_as_they_are_known() -> None:
    (found,) = samples.readable(['{"at_ms": 1, "outcome": "succeeded", "measure_of_tomorrow": 3}', "not JSON"])
    assert found.outcome == "succeeded"
