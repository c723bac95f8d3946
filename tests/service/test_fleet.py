"""Where work runs, what that was like, what it costs, and what is to be expected."""

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import embedded
from infra.children import Child
from tests.conftest import TENANTS, Tenant, eventually, running_stack
from tests.service.conftest import darkroom_admin


@pytest.fixture
def penny(stack: embedded.Stack) -> Tenant:
    """She may spend $0.025 a month."""
    return Tenant(stack.url, "penny", TENANTS["penny"])


def _darkroom(tenant: Tenant, *command: str) -> str:
    program = [str(Path(sys.executable).parent / "darkroom"), "--url", tenant.url, "--key", tenant.key]
    return subprocess.run([*program, *command], capture_output=True, text=True, check=True).stdout


def test_an_answer_says_where_it_ran_and_where_the_time_went(alice: Tenant, tiny: str) -> None:
    found = alice.finished(alice.enqueue(tiny, gpu_type="cpu", region="local"))
    assert (found["ran_on"]["gpu_type"], found["ran_on"]["region"]) == ("cpu", "local")
    assert found["ran_on"]["why"].startswith("pinned to cpu.local; ")
    assert found["timings"]["execute_ms"] == found["execution_ms"] >= 20
    assert alice.finished(alice.enqueue(tiny))["ran_on"]["why"].startswith("the first that was free; ")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"region": "moon"}, "region"),
        ({"region": 5}, "region"),
        ({"gpu_type": ["cpu", "h1000"]}, "gpu_type"),
        ({"gpu_type": ["cpu", 7]}, "gpu_type"),
        ({"gpu_type": ["h100"]}, "gpu_type"),
        ({"max_cost_usd": 0}, "max_cost_usd"),
        ({"max_cost_usd": "much"}, "max_cost_usd"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": 10**9}, "deadline"),
    ],
)
def test_what_cannot_be_is_refused_by_name(alice: Tenant, tiny: str, asked: dict[str, object], field: str) -> None:
    refused = alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny, **asked})
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, field)


def test_of_several_gpu_types_the_first_that_has_a_worker_is_taken(alice: Tenant, tiny: str) -> None:
    asked = {"model": "pinned", "prompt": "x", "input_image": tiny, "gpu_type": ["h100", "cpu"]}
    accepted = alice.post("/api/ai/queue", asked).json()
    assert accepted["waiting_for_worker"] is False
    assert alice.finished(accepted["generations"][0]["generation_id"])["ran_on"]["gpu_type"] == "cpu"


def test_what_waits_past_its_deadline_is_over_and_says_so(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, model="pinned", gpu_type="h100", deadline=1)
    assert alice.finished(id_)["error_code"] == "deadline_exceeded"
    running = alice.enqueue(tiny, model="slow", deadline=1)
    assert alice.finished(running)["error_code"] == "deadline_exceeded"


def test_a_cost_ceiling_is_held_before_anything_runs(alice: Tenant, tiny: str) -> None:
    asked = {"model": "priced", "prompt": "x", "input_image": tiny}
    refused = alice.post("/api/ai/queue", {**asked, "max_cost_usd": 0.009})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "max_cost_usd: the cheapest is cpu at $0.0100"
    found = alice.finished(alice.enqueue(tiny, model="priced", max_cost_usd=0.01))
    assert found["cost_usd"] == 0.01


def test_a_budget_refuses_rather_than_overdraws_and_what_was_used_is_told(penny: Tenant, tiny: str) -> None:
    asked = {"model": "priced", "prompt": "x", "input_image": tiny}
    two = penny.post("/api/ai/queue", {**asked, "num_generations": 2})
    refused = penny.post("/api/ai/queue", asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")
    for one in two.json()["generations"]:
        assert penny.finished(one["generation_id"])["cost_usd"] == 0.01
    usage = penny.get("/api/ai/usage").json()
    assert (usage["spent_usd"], usage["reserved_usd"], usage["budget_usd"]) == (0.02, 0, 0.025)
    assert penny.post("/api/ai/queue", asked).status_code == 402
    assert penny.post("/v2/priced/run", {"input": {"prompt": "x", "image": tiny}}).status_code == 402
    (row,) = csv.DictReader(io.StringIO(_darkroom(penny, "usage")))
    assert (row["model"], row["generations"], row["cost_usd"]) == ("priced", "2", "0.02")
    assert penny.get("/api/ai/usage?month=2020-01").json()["models"] == []


def test_an_estimate_is_taken_from_what_ran_and_scaled_for_what_did_not(alice: Tenant, tiny: str) -> None:
    for _ in range(5):
        alice.finished(alice.enqueue(tiny, model="paced", aspect_ratio="1:1"))

    def expected(**asked: object) -> dict[str, object]:
        query = "&".join(f"{name}={value}" for name, value in {"gpu_type": "cpu", **asked}.items())
        (found,) = alice.get(f"/api/ai/models/paced/estimate?{query}").json()["targets"]
        return dict(found)

    usual = eventually(lambda: (one := expected())["is_measured"] and one)
    assert 600 <= usual["warm_ms"]["p50"] <= 1000
    assert usual["basis"].endswith("runs at this size and step count")
    fewer = expected(num_inference_steps=4)
    assert (fewer["is_measured"], "scaled" in str(fewer["basis"])) == (False, True)
    assert fewer["warm_ms"]["p50"] < usual["warm_ms"]["p50"]  # type: ignore[index]
    (elsewhere,) = alice.get("/api/ai/models/paced/estimate?gpu_type=h100").json()["targets"]
    assert (elsewhere["warm_ms"], elsewhere["state"]) == (None, "no worker")
    assert f"p50 {usual['warm_ms']['p50'] / 1000:.1f}" in _darkroom(alice, "estimate", "paced", "--gpu", "cpu")


def test_what_waits_is_told_when_it_is_likely_to_be_over(alice: Tenant, tiny: str) -> None:
    alice.finished(alice.enqueue(tiny, model="lasting"))
    usual = eventually(lambda: alice.get("/api/ai/models/lasting/estimate").json()["targets"][0]["warm_ms"])
    ids = [alice.enqueue(tiny, model="lasting") for _ in range(3)]
    eventually(lambda: alice.get(f"/api/ai/queue/{ids[0]}").json()["status"] == "processing")
    etas = [alice.get(f"/api/ai/queue/{id_}").json()["eta_ms"] for id_ in ids[1:]]
    assert 0.9 * usual["p50"] <= etas[0] < etas[1] <= 4 * usual["p50"]
    for id_ in ids:
        alice.delete(f"/api/ai/queue/{id_}")
    assert alice.get(f"/api/ai/queue/{ids[0]}").json()["eta_ms"] is None


@pytest.fixture(scope="module")
def two_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A stack with a CPU's worker here and an H100's elsewhere, whose models sleep."""
    folder = tmp_path_factory.mktemp("two-kinds")
    # A busy machine may take longer than the shipped three seconds to serve what is left to the other.
    with running_stack(folder, DARKROOM_MODELS='["paced", "heavy"]', DARKROOM_DEFER_S="60") as one:
        first = one.children["worker-1"]
        places = {"DARKROOM_GPU_TYPE": "h100", "DARKROOM_REGION": "eu-north1", "DARKROOM_MODELS": '["paced"]'}
        other = Child(
            "h100",
            [sys.executable, "-m", "workers.gpu"],
            {**first.environment, **places},
            first.log_file.with_name("h100.log"),
        )
        alice = Tenant(one.url, "alice", TENANTS["alice"])
        eventually(lambda: len(alice.get("/api/ai/fleet").json()["workers"]) == 2)
        yield alice
        other.stop()


def test_pinned_work_never_runs_elsewhere_and_unpinned_work_runs_everywhere(two_kinds: Tenant, tiny: str) -> None:
    pinned = [(kind, two_kinds.enqueue(tiny, model="paced", gpu_type=kind)) for kind in ("cpu", "h100") * 4]
    regional = [two_kinds.enqueue(tiny, model="paced", region="eu-north1") for _ in range(4)]
    free = [two_kinds.enqueue(tiny, model="paced") for _ in range(12)]
    assert [two_kinds.finished(id_)["ran_on"]["gpu_type"] for _, id_ in pinned] == [kind for kind, _ in pinned]
    assert {two_kinds.finished(id_)["ran_on"]["region"] for id_ in regional} == {"eu-north1"}
    assert {two_kinds.finished(id_)["ran_on"]["gpu_type"] for id_ in free} == {"cpu", "h100"}


def test_work_goes_to_the_worker_that_has_the_model_loaded(two_kinds: Tenant, tiny: str) -> None:
    def told() -> dict[str, tuple[str, bool]]:
        """By GPU type: the state of the model, and whether the worker leaves it to others."""
        workers = two_kinds.get("/api/ai/fleet").json()["workers"]
        return {one["gpu_type"]: (one["models"]["paced"]["state"], "paced" in one["left_to_others"]) for one in workers}

    two_kinds.post("/v1/model-families/paced/stop", {})
    # Until the CPU's worker knows that the other has it no more: that it leaves it work would be told of the time before.
    eventually(lambda: told() == {"cpu": ("cold", False), "h100": ("cold", False)})
    two_kinds.post("/v1/model-families/paced/start", {"gpu_type": "h100"})
    eventually(lambda: told() == {"cpu": ("cold", True), "h100": ("warm", False)})
    generations = [two_kinds.finished(two_kinds.enqueue(tiny, model="paced", seed=n)) for n in range(6)]
    assert {one["ran_on"]["gpu_type"] for one in generations} == {"h100"}


def test_of_several_gpu_types_the_first_is_preferred_while_it_has_a_worker(two_kinds: Tenant, tiny: str) -> None:
    ids = [two_kinds.enqueue(tiny, model="paced", gpu_type=["h100", "cpu"]) for _ in range(3)]
    assert {two_kinds.finished(id_)["ran_on"]["gpu_type"] for id_ in ids} == {"h100"}


def test_what_an_operator_paused_waits_and_says_so(stack: embedded.Stack, tiny: str) -> None:
    hugh = Tenant(stack.url, "hugh", TENANTS["hugh"])
    assert "tenant hugh: paused" in darkroom_admin(stack, "pause", "tenant", "hugh").stdout
    try:
        id_ = hugh.enqueue(tiny)
        eventually(lambda: (hugh.get(f"/api/ai/queue/{id_}").json()["waiting_for"] or {}).get("reason") == "paused")
        assert "tenant hugh  since 20" in darkroom_admin(stack, "paused").stdout
        assert "was paused already" in darkroom_admin(stack, "pause", "tenant", "hugh").stdout
    finally:
        assert "tenant hugh: resumed" in darkroom_admin(stack, "resume", "tenant", "hugh").stdout
    assert hugh.finished(id_)["status"] == "succeeded"
    assert "nothing is paused" in darkroom_admin(stack, "paused").stdout
    unknown = darkroom_admin(stack, "pause", "model", "nope")
    assert (unknown.returncode, "Model not found: nope" in unknown.stderr) == (1, True)
    for queue in ("nope", "edits.flux-2-dev", "edits.flux-2-dev.b200x", "edits.nope.any", "edits.flux-2-dev.h100.moon"):
        unknown = darkroom_admin(stack, "pause", "queue", queue)
        assert (unknown.returncode, f"{queue} is no queue: edits.MODEL.GPU_TYPE" in unknown.stderr) == (1, True)
    for queue in ("edits.flux-2-dev.any", "edits.flux-2-dev.h100"):
        for command in ("pause", "resume"):
            assert darkroom_admin(stack, command, "queue", queue).returncode == 0


def test_an_operator_is_told_which_store_does_not_answer(stack: embedded.Stack) -> None:
    told = darkroom_admin(stack, "parked", REDIS_URL="redis://:a-password@127.0.0.1:9/0").stderr
    assert "does not answer" in told
    assert "127.0.0.1:9," in told
    assert "a-password" not in told
