"""Models come when work asks for them, stay a while, and make room for each other."""

import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage.contracts import errors, planning, plans
from storage.contracts.catalog import Catalog
from storage.contracts.plans import WORKSPACE_KB_PER_PIXEL, TextEncoding
from storage.contracts.weights import Layers, Memory, Part
from storage.settings import StoreSettings
from workers.pipelines import stand_in
from workers.residency import Residency
from workers.rooms import ENCODED_HERE_S, Rooms

TEN_GB = Memory(
    transformer=Part(layers=(Layers(count=9, gb=1),)),
    text_encoder=Part(layers=(Layers(count=9, gb=0.1),), activations=0.5),
    vae=0.1,
    token_kb=0.001,
    decode_kb_per_pixel=3e6 / 1_800_000 - WORKSPACE_KB_PER_PIXEL,
)


@dataclass
class Shelf:
    """A residency of stand-ins that weigh something, a clock to turn, and a log of what was loaded and closed."""

    monkeypatch: pytest.MonkeyPatch
    now: float = 0.0
    log: list[str] = field(default_factory=list)
    failing: list[errors.DarkroomError] = field(default_factory=list)

    def __post_init__(self) -> None:
        shelf, load = self, stand_in.load

        def noted(weights: Any, *rest: Any) -> stand_in.StandInPipeline:
            if shelf.failing:
                raise shelf.failing.pop(0)
            shelf.log.append(f"load {weights.name}")
            pipeline = load(weights, *rest)
            self.monkeypatch.setattr(
                pipeline, "close", lambda: shelf.log.append(f"close {weights.name}"), raising=False
            )
            return pipeline

        self.monkeypatch.setattr(stand_in, "load", noted)

    def residency(self, memory_gb: float = 30, **more: Any) -> Residency:
        known = StoreSettings().read_catalog()
        base = known.model("flux-kontext-dev")
        models = {
            # 10 GB of weights each, 3 GB of activations, 1 GB of context.
            name: base.model_copy(
                update={
                    "pipeline": "stand_in",
                    "aliases": (),
                    "weights": base.weights.model_copy(update={"source": "1", "name": name}),
                    "memory": TEN_GB,
                }
            )
            for name in ("a", "b", "c")
        }
        cpu = known.gpu_types["cpu"].model_copy(update={"memory_gb": memory_gb})
        catalog = Catalog(models={}, gpu_types={}).model_copy(update={"models": models, "gpu_types": {"cpu": cpu}})
        return Residency(catalog, weights_dir=Path("none"), gpu_type="cpu", clock=lambda: self.now, **more)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(monkeypatch)


def test_a_model_is_loaded_when_asked_for_and_only_once(shelf: Shelf) -> None:
    residency = shelf.residency()
    assert residency.state("a") == {"state": "cold"}
    assert residency.pipeline("a") is residency.pipeline("a")
    assert shelf.log == ["load a"]
    assert residency.state("a") == {"state": "warm", "placement": "bf16, resident"}


def test_while_it_loads_the_share_is_told_and_work_for_it_is_preferred(shelf: Shelf) -> None:
    residency, seen = shelf.residency(), []
    residency.pipeline("a", lambda share: seen.append((share, residency.state("a"), residency.resident())))
    assert seen[0] == (0.0, {"state": "starting", "percent": 0}, ("a",))
    assert seen[5] == (0.5, {"state": "starting", "percent": 50}, ("a",))
    assert seen[-1][0] == 1.0


def test_what_fits_together_stays_together(shelf: Shelf) -> None:
    residency = shelf.residency(memory_gb=24)
    for model in ("a", "b", "a", "b"):
        residency.pipeline(model)
    assert shelf.log == ["load a", "load b"]


def test_the_least_recently_used_makes_room(shelf: Shelf) -> None:
    residency = shelf.residency(memory_gb=24)
    for model in ("a", "b", "a", "c"):
        shelf.now += 1
        residency.pipeline(model)
    assert shelf.log == ["load a", "load b", "close b", "load c"]
    assert set(residency.resident()) == {"a", "c"}


def test_what_was_preloaded_never_makes_room(shelf: Shelf) -> None:
    residency = shelf.residency(memory_gb=24, preloaded=frozenset({"a"}))
    for model in ("a", "b", "c"):
        shelf.now += 1
        residency.pipeline(model)
    assert shelf.log == ["load a", "load b", "close b", "load c"]


def test_what_is_unused_for_long_goes_and_what_was_preloaded_stays(shelf: Shelf) -> None:
    residency = shelf.residency(keep_warm_s=900, preloaded=frozenset({"a"}))
    residency.pipeline("a")
    residency.pipeline("b")
    shelf.now = 899
    residency.cool()
    assert residency.state("b")["state"] == "warm"
    shelf.now = 900
    residency.cool()
    assert residency.state("b") == {"state": "cold"}
    assert residency.state("a")["state"] == "warm"
    assert shelf.log == ["load a", "load b", "close b"]


def test_a_load_that_fails_is_a_state_with_its_reason_and_not_tried_again_at_once(shelf: Shelf) -> None:
    residency = shelf.residency()
    shelf.failing = [errors.ModelUnavailableError("a: the weights are gone")]
    for _ in range(3):
        with pytest.raises(errors.ModelUnavailableError, match="the weights are gone"):
            residency.pipeline("a")
    assert residency.state("a") == {"state": "failed", "reason": "a: the weights are gone", "failures": 1}
    shelf.now = residency.load_rest_s
    residency.pipeline("a")
    assert residency.state("a")["state"] == "warm"


def test_out_of_memory_while_loading_clears_the_device_and_tries_once_more(shelf: Shelf) -> None:
    told: list[str] = []
    residency = shelf.residency(memory_gb=100, exhausted=told.append)
    residency.pipeline("a")
    shelf.failing = [errors.OutOfMemoryError("full")]
    residency.pipeline("b")
    assert shelf.log == ["load a", "close a", "load b"]
    assert told == ["b"]
    shelf.failing = [errors.OutOfMemoryError("full")] * 2
    with pytest.raises(errors.OutOfMemoryError):
        residency.pipeline("c")


def test_a_model_too_large_for_the_device_is_refused_with_the_sum(shelf: Shelf) -> None:
    with pytest.raises(
        errors.ModelUnavailableError,
        match=r"a on cpu needs 14.0 GB at the least, and there are 2; it fits no listed GPU type",
    ):
        shelf.residency(memory_gb=2).pipeline("a")


@pytest.mark.parametrize("fails", [False, True])
def test_how_long_a_load_has_taken_is_told_until_it_is_over(shelf: Shelf, fails: bool) -> None:
    residency, told = shelf.residency(), []

    def loaded(share: float) -> None:
        shelf.now += 2
        told.append(residency.loading_s)
        if fails:
            raise errors.ModelUnavailableError("damaged")

    with contextlib.suppress(errors.ModelUnavailableError):
        residency.pipeline("a", loaded)
    assert told[0] == 2
    assert residency.loading_s == 0


def _tight(shelf: Shelf, **more: Any) -> Residency:
    """On a GPU of 24 GB that streams layers, so that plans differ."""
    residency = shelf.residency(memory_gb=24, **more)
    gpu = residency.known.gpu_types["cpu"].model_copy(update={"capability": 8.9})
    return dataclasses.replace(residency, known=residency.known.model_copy(update={"gpu_types": {"cpu": gpu}}))


def test_what_ran_out_of_memory_is_first_left_alone_on_the_device(shelf: Shelf) -> None:
    told: list[str] = []
    residency = _tight(shelf, exhausted=told.append)
    residency.pipeline("a")
    residency.pipeline("b")
    assert residency.relieve("b")
    assert told == ["b"]
    assert residency.resident() == ("b",)
    assert shelf.log == ["load a", "load b", "close a"]


def test_then_it_steps_down_to_a_plan_that_needs_less_and_stays_there(shelf: Shelf) -> None:
    residency = _tight(shelf)
    residency.pipeline("a")
    assert residency.relieve("a")
    residency.pipeline("a")
    lowered = str(residency.state("a")["placement"])
    assert "streamed" in lowered
    assert lowered.endswith("after running out of memory")
    residency.let_go("a")
    residency.pipeline("a")
    assert residency.state("a")["placement"] == lowered, "it is not tried anew what is known not to work"


def test_where_no_plan_needs_less_there_is_no_relief(shelf: Shelf) -> None:
    residency = _tight(shelf)
    steps = 0
    residency.pipeline("a")
    while residency.relieve("a"):
        residency.pipeline("a")
        steps += 1
        assert steps < 50
    assert steps > 2
    assert "decoded in tiles" in str(residency.state("a")["placement"])


def test_a_load_without_memory_steps_down_until_one_fits(shelf: Shelf) -> None:
    residency = _tight(shelf)
    shelf.failing = [errors.OutOfMemoryError("full")] * 3
    residency.pipeline("a")
    assert str(residency.state("a")["placement"]).endswith("after running out of memory")


def test_a_model_that_warms_up_badly_is_closed_and_told_as_failed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = shelf.residency()

    def no_memory(self: object, job: object) -> None:
        raise errors.GpuFaultError("fault")

    monkeypatch.setattr(stand_in.StandInPipeline, "warm_up", no_memory)
    with pytest.raises(errors.GpuFaultError):
        residency.pipeline("a")
    assert shelf.log == ["load a", "close a"]
    assert residency.state("a")["state"] == "failed"


def test_what_loading_would_take_off_the_device_is_foreseen(shelf: Shelf) -> None:
    residency = shelf.residency(memory_gb=24)
    residency.pipeline("a")
    assert residency.would_evict("b") == frozenset()
    shelf.now += 1
    residency.pipeline("b")
    assert residency.would_evict("c") == {"a"}
    assert residency.would_evict("a") == frozenset(), "it is there"
    residency.pipeline("c")
    assert set(residency.resident()) == {"b", "c"}


def test_a_cold_start_is_told_in_its_parts(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shelf.residency().pipeline("a")
    assert "import 0.0 s, read 0.0 s, warm-up 0.0 s" in caplog.text


def test_a_model_is_warmed_up_by_an_edit_of_its_usual_size(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stand_in.StandInPipeline, "warm_up", lambda self, job: seen.append(job))
    shelf.residency().pipeline("a")
    (job,) = seen
    assert (job.width, job.height, [image.size for image in job.references]) == (1024, 1024, [(1024, 1024)])


def test_a_machine_without_memory_for_streamed_layers_is_told_so(shelf: Shelf) -> None:
    residency = _tight(shelf)
    gpu = residency.known.gpu_types["cpu"].model_copy(update={"memory_gb": 9})
    small = dataclasses.replace(
        residency, known=residency.known.model_copy(update={"gpu_types": {"cpu": gpu}}), host_gb=8.0
    )
    with pytest.raises(errors.ModelUnavailableError, match=r"needs .* GB of the machine's memory .* there are 8.0"):
        small.pipeline("a")


@pytest.mark.parametrize("broken", ["import", "run"])
def test_a_model_whose_libraries_do_not_fit_is_remembered_as_failed(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise ImportError("no module named bitsandbytes") if broken == "import" else TypeError("an odd kernel")

    if broken == "import":
        monkeypatch.setattr("workers.loader.importlib.import_module", fail)
    else:
        monkeypatch.setattr(stand_in.StandInPipeline, "warm_up", fail)
    residency = shelf.residency()
    for _ in range(2):
        with pytest.raises(errors.ModelUnavailableError, match=r"bitsandbytes|an odd kernel"):
            residency.pipeline("a")
    assert residency.failed() == ("a",)
    assert residency.state("a")["failures"] == 1


def _compiling(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    """Stand-ins that say when they are compiled."""
    monkeypatch.setattr(stand_in.StandInPipeline, "postpone_compiling", lambda self: not log.append("postponed"))
    monkeypatch.setattr(stand_in.StandInPipeline, "warm_up", lambda self, job: log.append("warmed up"))


def test_who_waits_for_a_first_edit_does_not_wait_for_compiling(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    residency = shelf.residency()
    _compiling(monkeypatch, shelf.log)
    residency.pipeline("a", at_once=True)
    assert shelf.log == ["load a", "postponed"]
    residency.finish_warming("a")
    residency.finish_warming("a")
    assert shelf.log == ["load a", "postponed", "warmed up"], "once"


def test_what_was_compiled_before_is_warmed_up_first(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    residency = shelf.residency(compile_cache=tmp_path)
    _compiling(monkeypatch, shelf.log)
    for _ in range(2):
        residency.pipeline("a", at_once=True)
        residency.finish_warming("a")
        residency.let_go("a")
    assert shelf.log == ["load a", "postponed", "warmed up", "close a", "load a", "warmed up", "close a"]


def test_nobody_waits_for_a_model_that_is_preloaded(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    _compiling(monkeypatch, shelf.log)
    shelf.residency().pipeline("a")
    assert shelf.log == ["load a", "warmed up"]


def test_a_model_that_fails_in_warming_up_after_its_first_edit_is_loaded_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = shelf.residency()
    _compiling(monkeypatch, shelf.log)
    residency.pipeline("a", at_once=True)

    def no_memory(self: object, job: object) -> None:
        raise errors.OutOfMemoryError("full")

    monkeypatch.setattr(stand_in.StandInPipeline, "warm_up", no_memory)
    residency.finish_warming("a")
    assert residency.resident() == ()
    assert shelf.log == ["load a", "postponed", "close a"]


def _separable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "is_separable", lambda model: True)


def test_a_model_is_loaded_without_its_text_encoder_where_others_encode(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    _separable(monkeypatch)
    residency = shelf.residency(encoding=lambda model: "elsewhere" if model == "a" else "here")
    assert [residency.encodes_elsewhere(model) for model in ("a", "b")] == [True, False]
    for model in ("a", "b"):
        residency.pipeline(model)
    assert residency.state("a")["placement"] == "bf16, resident, text encoder elsewhere"
    assert residency.state("b")["placement"] == "bf16, resident"
    assert [residency.encodes_elsewhere(model) for model in ("a", "b")] == [True, False]


@pytest.mark.parametrize("preloaded", [frozenset(), frozenset({"a"})], ids=["loaded when asked for", "preloaded"])
def test_one_whose_prompts_nobody_encoded_is_loaded_with_its_text_encoder_for_a_while(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, preloaded: frozenset[str]
) -> None:
    _separable(monkeypatch)
    residency = shelf.residency(encoding=lambda model: "elsewhere", preloaded=preloaded)
    residency.pipeline("a")
    residency.encode_here("a")
    residency.pipeline("a")
    assert residency.state("a")["placement"] == "bf16, resident"
    assert shelf.log == ["load a", "close a", "load a"]
    assert not residency.encodes_elsewhere("a")
    shelf.now += ENCODED_HERE_S
    residency.encode_here("b")
    assert not residency.encodes_elsewhere("b")
    shelf.now += ENCODED_HERE_S
    assert residency.encodes_elsewhere("b")


def test_a_plan_without_a_text_encoder_that_was_too_much_is_not_kept_where_nobody_encodes_any_more(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    _separable(monkeypatch)
    encoding: list[TextEncoding] = ["elsewhere"]
    residency = shelf.residency(encoding=lambda model: encoding[0])
    residency.pipeline("a")
    lowered = dataclasses.replace(plans.RESIDENT, encoding="elsewhere", stepped_down=True)
    monkeypatch.setattr(planning, "below", lambda *args, **more: lowered)
    assert residency.relieve("a")
    assert residency.encodes_elsewhere("a")
    encoding[0] = "here"
    assert not residency.encodes_elsewhere("a")


def test_a_model_whose_text_encoder_has_no_room_stays_as_it_is(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    _separable(monkeypatch)
    # 14 GB with it and 13.1 without.
    residency = shelf.residency(memory_gb=13.5, encoding=lambda model: "elsewhere")
    residency.pipeline("a")
    with pytest.raises(errors.ModelUnavailableError, match="has no room here"):
        residency.encode_here("a")
    assert shelf.log == ["load a"]
    assert residency.encodes_elsewhere("a")
    assert residency.pipeline("a"), "it is served as soon as somebody encodes prompts again"


def test_what_is_loading_is_what_the_next_edit_is_prepared_for(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    _separable(monkeypatch)
    encoding: list[TextEncoding] = ["elsewhere"]
    residency, seen = shelf.residency(encoding=lambda model: encoding[0]), []

    def loaded(share: float) -> None:
        if share < 1:
            encoding[0] = "here"
            seen.append(residency.encodes_elsewhere("a"))

    residency.pipeline("a", loaded)
    assert False not in seen[1:]


@pytest.mark.parametrize(("kind", "ladder"), [("here", "here"), ("elsewhere", "either"), ("only", "only")])
def test_less_memory_is_looked_for_among_plans_of_the_same_kind(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, kind: TextEncoding, ladder: str
) -> None:
    _separable(monkeypatch)
    asked: list[object] = []

    def below(*args: object, **more: object) -> None:
        asked.append(more["encoding"])

    monkeypatch.setattr(planning, "below", below)
    residency = shelf.residency(encoding=lambda model: kind)
    residency.pipeline("a")
    assert not residency.relieve("a")
    assert asked == [ladder]


def test_compiling_after_a_first_edit_is_limited_in_time_as_loading_is(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = shelf.residency()
    _compiling(monkeypatch, shelf.log)
    residency.pipeline("a", at_once=True)
    told = []

    def hang(self: object, job: object) -> None:
        shelf.now += 7
        told.append(residency.loading_s)

    monkeypatch.setattr(stand_in.StandInPipeline, "warm_up", hang)
    residency.finish_warming("a")
    assert told == [7]
    assert residency.loading_s == 0


def test_for_what_cannot_be_compiled_for_want_of_memory_a_lower_plan_is_looked_for(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    residency = shelf.residency()
    _compiling(monkeypatch, shelf.log)
    residency.pipeline("a", at_once=True)
    lowered = []
    monkeypatch.setattr(residency._rooms, "lower", lambda model, plan: lowered.append((model, plan)))

    def exhaust(self: object, job: object) -> None:
        raise errors.OutOfMemoryError("short")

    monkeypatch.setattr(stand_in.StandInPipeline, "warm_up", exhaust)
    plan = residency._resident["a"].plan
    residency.finish_warming("a")
    assert (residency.resident(), lowered) == ((), [("a", plan)])


@pytest.mark.parametrize(
    ("gpu_type", "first", "second"),
    [
        ("l40s", "flux-2-klein-9b", "flux-kontext-dev-fast"),
        ("h100", "flux-2-dev", "flux-kontext-dev"),
        ("h100", "flux-2-dev-fp8", "flux-2-klein-4b"),
    ],
)
def test_a_model_leaves_those_that_stay_the_room_to_work(gpu_type: str, first: str, second: str) -> None:
    known = StoreSettings().read_catalog()
    rooms = Rooms(known, gpu_type)
    staying = rooms.plan(first, [])
    assert staying is not None
    beside = rooms.plan(second, [staying])
    assert beside is not None
    assert planning.total_gb([staying, beside]) <= known.gpu_types[gpu_type].memory_gb


def test_models_together_have_no_more_host_memory_than_there_is() -> None:
    known = StoreSettings().read_catalog()
    rooms = Rooms(known, "rtx-4090", host_gb=64, encoding=lambda model: "only")
    both = [plan for name in ("flux-2-dev", "flux-2-dev-fp8") if (plan := rooms.plan(name, [])) is not None]
    assert [rooms.have([one]) for one in both] == [True, True]
    assert planning.total_host_gb(both) > 64
    assert not rooms.have(both)
    assert Rooms(known, "rtx-4090", host_gb=128, encoding=lambda model: "only").have(both)
