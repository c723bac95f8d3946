"""RunPod's routes, by its Python client and as its clients' habits are."""

import contextlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from standardwebhooks.webhooks import Webhook

from infra import embedded
from infra.children import Child
from storage import connections, keys
from tests import web
from tests.conftest import PHOTOGRAPH, Receiving, Tenant, eventually
from tests.dialects.conftest import PROMPT, pixels
from tests.service.test_published_samples import PAGES

KONTEXT = "black-forest-labs-flux-1-kontext-dev"


@pytest.fixture
def runpod(ruth: Tenant, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import runpod
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{ruth.url}/v2")
    monkeypatch.setattr(runpod, "api_key", ruth.key)
    return runpod


def asked(photograph: str, **more: object) -> dict[str, object]:
    return {"prompt": PROMPT, "image": photograph, **more}


def test_run_sync_returns_the_output(runpod: ModuleType, photograph: str) -> None:
    output = runpod.Endpoint("quick").run_sync(asked(photograph))
    assert output["image_url"] == output["result"]
    assert pixels(requests.get(output["image_url"], timeout=10).content)[0] == (1024, 1024)
    assert output["cost"] == 0


def test_a_job_is_polled_to_its_end_and_its_output_streamed_once(runpod: ModuleType, photograph: str) -> None:
    job = runpod.Endpoint("quick").run({"input": asked(photograph, seed=0)})
    assert job.output(timeout=20)["seed"] == 0
    assert job.status() == "COMPLETED"
    assert [output["seed"] for output in job.stream()] == [0]


def test_a_running_job_is_cancelled(runpod: ModuleType, ruth: Tenant, photograph: str) -> None:
    job = runpod.Endpoint("slow").run(asked(photograph))
    eventually(lambda: job.status() == "IN_PROGRESS")
    assert job.cancel() == {"id": job.job_id, "status": "CANCELLED"}
    assert job.status() == "CANCELLED"


def test_purging_takes_the_queued_and_leaves_the_running(runpod: ModuleType, ruth: Tenant, photograph: str) -> None:
    endpoint = runpod.Endpoint("slow")
    jobs = [endpoint.run(asked(photograph)) for _ in range(5)]
    eventually(lambda: any(job.status() == "IN_PROGRESS" for job in jobs))
    before = endpoint.health()["jobs"]
    purged = endpoint.purge_queue()
    assert purged["status"] == "completed"
    assert purged["removed"] >= 3
    left = [job for job in jobs if job.status() != "CANCELLED"]
    assert len(left) == 5 - purged["removed"] >= 1
    assert before["inProgress"] + before["inQueue"] == 5
    for job in left:
        job.cancel()
    assert endpoint.health()["jobs"]["inQueue"] == 0


def test_health_counts_jobs_and_workers(runpod: ModuleType, photograph: str) -> None:
    endpoint = runpod.Endpoint("quick")
    before = endpoint.health()["jobs"]["completed"]
    endpoint.run_sync(asked(photograph))
    health = endpoint.health()
    assert health["jobs"]["completed"] == before + 1
    assert health["workers"]["idle"] + health["workers"]["running"] == 1


async def test_the_asynchronous_client_wraps_once_more(runpod: ModuleType, ruth: Tenant, photograph: str) -> None:
    from runpod import AsyncioEndpoint
    from runpod.http_client import ClientSession

    async with ClientSession() as session:
        job = await AsyncioEndpoint("quick", session).run({"input": asked(photograph, seed=7)})
        output = await job.output(timeout=20)
    assert output["seed"] == 7


def test_the_published_sample_runs(stack: embedded.Stack, ruth: Tenant, photograph: str) -> None:
    page = PAGES / "004_c90ef564210c900f.txt"
    sample = OUR_SAMPLE
    if page.exists():
        found = re.search(r"curl -X POST.*?\n}'", page.read_text(), re.DOTALL)
        assert found, "the page has a sample"
        sample = found[0]

    port = int(stack.options.environment["TEST_IMAGE_PORT"])
    code = sample.replace("https://api.runpod.ai", ruth.url).replace(
        "https://example.com/bluebird.png", f"http://127.0.0.1:{port}/bluebird.jpg"
    )
    # The page sets its code with a space before the closing quote.
    environment = {**os.environ, "RUNPOD_API_KEY": ruth.key}
    with web.serving(port, {"/bluebird.jpg": web.picture(PHOTOGRAPH.read_bytes(), "image/jpeg")}):
        command = ["bash", "-c", code.replace('KEY "', 'KEY"')]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    job = json.loads(done.stdout)
    assert job["status"] == "COMPLETED", job
    assert job["id"].startswith("sync-")
    assert set(job) >= {"delayTime", "executionTime", "workerId"}


OUR_SAMPLE = f"""curl -X POST "https://api.runpod.ai/v2/{KONTEXT}/runsync" -H "Authorization: Bearer $RUNPOD_API_KEY" \\
-H "Content-Type: application/json" \\
-d '{{"input": {{"prompt": "a bird", "image": "https://example.com/bluebird.png", "seed": -1}}}}'"""


@pytest.mark.parametrize("authorization", ["Bearer {}", "{}", "bearer {}"])
def test_the_key_may_come_bare(ruth: Tenant, authorization: str) -> None:
    headers = {"Authorization": authorization.format(ruth.key)}
    assert requests.get(f"{ruth.url}/v2/quick/health", headers=headers, timeout=10).status_code == 200


@pytest.mark.parametrize("size", ["1472*1140", "1140*1472", "1328*1328", "64*64"])
def test_sizes_clients_send_come_back_as_asked(ruth: Tenant, photograph: str, size: str) -> None:
    job = ruth.post("/v2/quick/runsync", {"input": asked(photograph, size=size)}).json()
    assert "{width}*{height}".format(**job["output"]) == size


def test_an_unfinished_job_comes_back_when_the_wait_is_over(ruth: Tenant, photograph: str) -> None:
    job = ruth.post("/v2/slow/runsync?wait=1000", {"input": asked(photograph)}).json()
    assert job["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert ruth.get(f"/v2/slow/status-sync/{job['id']}?wait=60000").json()["status"] == "COMPLETED"


def test_what_is_done_cannot_be_retried(ruth: Tenant, photograph: str) -> None:
    done = ruth.post("/v2/quick/runsync", {"input": asked(photograph)}).json()
    assert ruth.post(f"/v2/quick/retry/{done['id']}").status_code == 400


def test_a_failed_job_is_retried_under_its_id(ruth: Tenant) -> None:
    job = ruth.post("/v2/quick/runsync", {"input": {"prompt": PROMPT, "image": "http://127.0.0.1:1/x.png"}}).json()
    assert (job["status"], job["error_code"]) == ("FAILED", "input_unreachable")
    assert ruth.post(f"/v2/quick/retry/{job['id']}").json() == {"id": job["id"], "status": "IN_QUEUE"}
    assert ruth.get(f"/v2/quick/status-sync/{job['id']}").json()["status"] == "FAILED"


def test_a_job_that_runs_too_long_is_timed_out_and_can_be_retried(ruth: Tenant, photograph: str) -> None:
    body = {"input": asked(photograph), "policy": {"executionTimeout": 5000}}
    job = ruth.post("/v2/slower/run", body).json()
    ended = ruth.get(f"/v2/slower/status-sync/{job['id']}?wait=60000").json()
    assert (ended["status"], ended["error_code"]) == ("TIMED_OUT", "timed_out")
    assert ruth.post(f"/v2/slower/retry/{job['id']}").json() == {"id": job["id"], "status": "IN_QUEUE"}
    eventually(lambda: ruth.get(f"/v2/slower/status/{job['id']}").json()["status"] == "IN_PROGRESS")
    assert ruth.get("/v2/slower/health").json()["jobs"]["retried"] == 1
    assert ruth.post(f"/v2/slower/cancel/{job['id']}").json()["status"] == "CANCELLED"


def test_a_job_past_its_time_is_timed_out(ruth: Tenant, photograph: str) -> None:
    # Each takes eight seconds: the last would end after twenty-four. Which input is prepared first is edited first.
    first = ruth.post("/v2/slower/run", {"input": asked(photograph)}).json()["id"]
    eventually(lambda: ruth.get(f"/v2/slower/status/{first}").json().get("output"))
    second = ruth.post("/v2/slower/run", {"input": asked(photograph)}).json()["id"]
    job = ruth.post("/v2/slower/run", {"input": asked(photograph), "policy": {"ttl": 10_000}}).json()["id"]
    ended = ruth.get(f"/v2/slower/status-sync/{job}?wait=30000").json()
    assert ended["status"] == "TIMED_OUT", ended
    assert ended["error_code"] in ("expired_in_queue", "deadline_exceeded")
    assert ruth.get(f"/v2/slower/status/{first}").json()["status"] == "COMPLETED"
    ruth.post(f"/v2/slower/cancel/{second}")


def test_a_filtered_job_has_failed_and_says_so(ruth: Tenant, photograph: str) -> None:
    job = ruth.post("/v2/quick/runsync", {"input": {"prompt": "child porn", "image": photograph}}).json()
    assert (job["status"], job["error_code"]) == ("FAILED", "content_filtered")


def test_a_webhook_is_signed_and_called_again_until_it_is_taken(
    ruth: Tenant, photograph: str, hooks: tuple[str, Receiving]
) -> None:
    url, receiving = hooks
    with receiving(500) as received:
        job = ruth.post("/v2/quick/run", {"input": asked(photograph), "webhook": url}).json()
        eventually(lambda: len(received) == 2)
    first, again = received
    assert first.json["id"] == job["id"]
    assert set(first.json) >= {"delayTime", "executionTime", "input", "output", "status", "webhook"}
    assert first.json["input"]["prompt"] == PROMPT
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    secret = ruth.get("/v1/webhooks/default/secret").json()["key"]
    Webhook(secret).verify(again.body, again.headers)


def test_a_tenant_reads_what_became_of_a_webhook_and_has_it_called_once_more(
    ruth: Tenant, alice: Tenant, photograph: str, hooks: tuple[str, Receiving]
) -> None:
    url, receiving = hooks
    with receiving(500) as received:
        job = ruth.post("/v2/quick/run", {"input": asked(photograph), "webhook": f"{url}?secret=7"}).json()
        id_ = job["id"].removesuffix("-u1")
        calls = eventually(lambda: len(found := _calls(ruth, id_)) == 2 and found)
        assert [(one["moment"], one["attempt"], one["outcome"]) for one in calls] == [
            ("completed", 2, "answered 200"),
            ("completed", 1, "answered 500"),
        ]
        assert calls[1]["next_at"] - calls[1]["at"] == pytest.approx(5, abs=0.1)
        assert calls[0]["next_at"] is None
        assert all(0 <= one["duration_ms"] < 5000 for one in calls)
        assert "secret" not in str(calls)
        assert _calls(alice, id_) == []
        assert alice.post(f"/api/ai/webhooks/{id_}/redeliver").status_code == 404
        assert ruth.post(f"/api/ai/webhooks/{id_}/redeliver").status_code == 202
        third = eventually(lambda: len(received) == 3 and received[2])
        assert third.headers["webhook-id"] == received[0].headers["webhook-id"], (
            "a receiver that has had it may pass over it"
        )
        eventually(lambda: len(_calls(ruth, id_)) == 3)
    without = ruth.post("/v2/quick/runsync", {"input": asked(photograph)}).json()["id"]
    plain = without.removeprefix("sync-").removesuffix("-u1")
    assert ruth.post(f"/api/ai/webhooks/{plain}/redeliver").json()["error"]["code"] == "invalid_input"
    ruth.delete(f"/api/ai/queue/{id_}?erase=true")
    assert _calls(ruth, id_) == [], "what is erased is told no more"


def _calls(tenant: Tenant, id_: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tenant.get(f"/api/ai/webhooks?generation_id={id_}").json()["calls"]
    return found


def test_what_stands_beside_an_input_that_is_wrapped_twice_counts(
    ruth: Tenant, photograph: str, hooks: tuple[str, Receiving]
) -> None:
    url, receiving = hooks
    with receiving() as received:
        ruth.post("/v2/quick/run", {"input": {"input": asked(photograph, enable_base64_output=True), "webhook": url}})
        (hook,) = eventually(lambda: received)
    assert hook.json["output"]["image"].startswith("data:image/png;base64,")


def test_the_call_for_a_retried_job_is_another_one(ruth: Tenant, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    body = {"input": {"prompt": PROMPT, "image": "http://127.0.0.1:1/x.png"}, "webhook": url}
    with receiving() as received:
        job = ruth.post("/v2/quick/run", body).json()
        eventually(lambda: len(received) == 1)
        ruth.post(f"/v2/quick/retry/{job['id']}")
        eventually(lambda: len(received) == 2)
    assert {one.json["id"] for one in received} == {job["id"]}
    assert len({one.headers["webhook-id"] for one in received}) == 2


def test_each_model_has_its_own_defaults(ruth: Tenant, photograph: str) -> None:
    def steps_of(model: str) -> int:
        job = ruth.post(f"/v2/{model}/run", {"input": asked(photograph)}).json()
        id_ = job["id"].removesuffix("-u1")
        steps = int(ruth.get(f"/api/ai/queue/{id_}").json()["progress"]["steps"])
        ruth.post(f"/v2/{model}/cancel/{job['id']}")
        return steps

    assert (steps_of("quick"), steps_of("flux-2-klein-4b")) == (5, 4)


def test_a_webhook_into_our_own_network_is_not_called(stack: embedded.Stack, ruth: Tenant, photograph: str) -> None:
    # Only who looks the name up knows where it leads.
    job = ruth.post("/v2/quick/runsync", {"input": asked(photograph), "webhook": "http://localhost/hook"}).json()
    assert job["status"] == "COMPLETED"
    record = keys.GENERATION + job["id"].removeprefix("sync-").removesuffix("-u1")
    with contextlib.closing(connections.connect(stack.store)) as connection:
        told = eventually(lambda: connection.hget(record, "called_completed"))
    assert told == "its host's name leads to no public address"


@pytest.fixture
def bucket(stack: embedded.Stack, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """Somebody's own S3 server with a bucket `theirs`; its address, and a client."""
    port = stack.options.environment["TEST_BUCKET_PORT"]
    (tmp_path / "theirs").mkdir()
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    environment = {**os.environ, "RCLONE_AUTH_KEY": '"their-access-id,their-secret-key"', "RCLONE_CONFIG": os.devnull}
    child = Child("bucket", [*command, str(tmp_path)], environment, tmp_path / "bucket.log")
    url = f"http://127.0.0.1:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="their-access-id",
        aws_secret_access_key="their-secret-key", config=Config(s3={"addressing_style": "path"}),
    )  # fmt: skip

    def answers() -> bool:
        try:
            return bool(client.list_objects_v2(Bucket="theirs")["ResponseMetadata"])
        except Exception:
            return False

    eventually(answers)
    yield url, client
    child.stop()


def test_a_result_goes_into_the_callers_own_bucket_and_its_secrets_stay_nowhere(
    stack: embedded.Stack, ruth: Tenant, photograph: str, bucket: tuple[str, Any]
) -> None:
    url, client = bucket
    config = {
        "accessId": "their-access-id",
        "accessSecret": "their-secret-key",
        "bucketName": "theirs",
        "endpointUrl": url,
    }
    job = ruth.post("/v2/quick/runsync", {"input": asked(photograph), "s3Config": config}).json()
    assert job["output"]["delivered"] is True
    (entry,) = client.list_objects_v2(Bucket="theirs")["Contents"]
    assert job["output"]["image_url"].startswith(f"{url}/theirs/{entry['Key']}?")
    assert pixels(requests.get(job["output"]["image_url"], timeout=10).content)[0] == (1024, 1024)
    import contextlib

    from storage import connections

    with contextlib.closing(connections.connect(stack.store)) as connection:
        record = connection.hgetall(f"darkroom:generation:{re.findall('[0-9a-f-]{36}', job['id'])[0]}")
    assert "their-secret-key" not in json.dumps(record)
    for file in (stack.options.data_dir / "logs").iterdir():
        text = file.read_text()
        assert "their-secret-key" not in text
        assert "X-Amz-Signature" not in text


def test_a_bucket_that_refuses_leaves_the_result_with_us(
    ruth: Tenant, photograph: str, bucket: tuple[str, Any]
) -> None:
    config = {
        "accessId": "their-access-id",
        "accessSecret": "wrong-secret",
        "bucketName": "theirs",
        "endpointUrl": bucket[0],
    }
    job = ruth.post("/v2/quick/runsync", {"input": asked(photograph), "s3Config": config}).json()
    assert (job["status"], job["output"]["delivered"]) == ("COMPLETED", False)
    assert requests.get(job["output"]["image_url"], timeout=10).status_code == 200


def test_errors_are_in_runpods_shape(ruth: Tenant, photograph: str) -> None:
    unknown = ruth.post("/v2/nope/run", {"input": asked(photograph)})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "endpoint not found")
    nobody = requests.post(f"{ruth.url}/v2/quick/run", json={}, timeout=10)
    assert (nobody.status_code, nobody.json()["error"]) == (401, "unauthorized")
    lost = ruth.get("/v2/quick/status/00000000-0000-0000-0000-000000000000-u1")
    assert lost.status_code == 404
    for body, field in (
        ({}, "input"),
        ({"input": asked(photograph, num_inference_steps=0)}, "num_inference_steps"),
        ({"input": {"image": photograph}}, "prompt"),
    ):
        refused = ruth.post("/v2/quick/run", body)
        assert (refused.status_code, refused.json()["field"]) == (400, field)


def test_a_bucket_in_our_own_network_is_not_written_to(ruth: Tenant, photograph: str) -> None:

    port = web.free_port()
    config = {"accessId": "a", "accessSecret": "b", "bucketName": "c", "endpointUrl": f"http://127.0.0.1:{port}"}
    with web.receiving(port, iter([])) as received:
        job = ruth.post("/v2/quick/runsync", {"input": asked(photograph), "s3Config": config}).json()
    assert (job["status"], job["output"]["delivered"], received) == ("COMPLETED", False, [])
    for wrong in (
        {"bucketName": ""},
        {"bucketName": "../x"},
        {"bucketName": "a b"},
        {"region": "not a region"},
        {"endpointUrl": "http://" + "x" * 3000},
        {"endpointUrl": "http://a_b c"},
        {"endpointUrl": "http://[::1"},
        {"endpointUrl": "http://"},
        {"objectPath": 7},
    ):
        refused = ruth.post("/v2/quick/run", {"input": asked(photograph), "s3Config": {**config, **wrong}})
        assert (refused.status_code, refused.json()["field"]) == (400, "s3Config"), wrong


def test_the_same_key_is_the_same_job_also_with_a_bucket(ruth: Tenant, photograph: str) -> None:
    config = {"accessId": "a", "accessSecret": "b", "bucketName": "ccc", "endpointUrl": "http://127.0.0.1:9"}
    body = {"input": asked(photograph), "s3Config": config}
    ids = {ruth.post("/v2/quick/run", body, headers={"Idempotency-Key": "once-more"}).json()["id"] for _ in range(2)}
    assert len(ids) == 1
    (job,) = ids
    again = ruth.post(f"/api/ai/queue/{job.removesuffix('-u1')}/replay").json()["generations"][0]["generation_id"]
    assert ruth.finished(again)["status"] == "succeeded"
    output = ruth.get(f"/v2/quick/status/{again}-u1").json()["output"]
    assert "delivered" not in output, "what was signed was signed for one upload"
