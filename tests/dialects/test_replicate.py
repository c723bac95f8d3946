"""Replicate's predictions, by its Python client."""

import io
import ssl
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest
import requests
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.helpers import FileOutput
from replicate.webhook import Webhooks
from standardwebhooks.webhooks import Webhook

from api.dialects.replicate import asking
from storage.contracts import errors
from tests.conftest import PHOTOGRAPH, Receiving, Tenant, eventually
from tests.dialects.conftest import PROMPT, pixels, small_picture

MODEL = "black-forest-labs/flux-kontext-dev"


@pytest.fixture
def client(rita: Tenant) -> Iterator[Client]:
    one = Client(api_token=rita.key, base_url=rita.url)
    yield one
    one._client.close()


@pytest.fixture
def secure_client(secure: tuple[str, object], trusting: ssl.SSLContext, rita: Tenant) -> Iterator[Client]:
    one = Client(api_token=rita.key, base_url=secure[0], transport=httpx.HTTPTransport(verify=trusting))
    yield one
    one._client.close()


def test_run_uploads_a_file_and_reads_the_result(secure_client: Client) -> None:
    with PHOTOGRAPH.open("rb") as image:
        output = secure_client.run(MODEL, input={"prompt": PROMPT, "input_image": image, "num_inference_steps": 4})
    assert isinstance(output, FileOutput)
    size, _ = pixels(output.read())
    assert size == (128, 128)


def test_a_prediction_lives_from_starting_to_succeeded(client: Client, tiny: str) -> None:
    prediction = client.models.predictions.create("darkroom/slow", input={"prompt": PROMPT, "input_image": tiny})
    seen = [prediction.status]
    eventually(lambda: (prediction.reload(), seen.append(prediction.status), prediction.status == "succeeded")[-1])
    assert sorted(set(seen), key=seen.index)[-2:] == ["processing", "succeeded"]
    assert seen[0] in ("starting", "processing")
    assert prediction.progress
    assert prediction.progress.percentage == 1.0
    assert prediction.metrics
    assert prediction.metrics["predict_time"] > 1
    assert prediction.input["prompt"] == PROMPT


def test_a_wait_that_ends_too_early_says_starting(client: Client, tiny: str) -> None:
    prediction = client.predictions.create(version="slow", input={"prompt": PROMPT, "input_image": tiny}, wait=1)
    assert prediction.status == "starting"
    prediction.wait()
    assert prediction.status == "succeeded"
    body = requests.get(prediction.output, timeout=10)
    assert body.headers["content-type"] == "image/webp"


def test_a_prediction_is_cancelled(client: Client, tiny: str) -> None:
    prediction = client.predictions.create(version="slow", input={"prompt": PROMPT, "input_image": tiny})
    prediction.cancel()
    assert prediction.status == "canceled"


def test_a_prediction_ends_after_the_time_it_was_given(rita: Tenant, tiny: str) -> None:
    asked = {"version": "slow", "input": {"prompt": PROMPT, "input_image": tiny}}
    made = rita.post("/v1/predictions", asked, headers={"Cancel-After": "1s", "Prefer": "wait=30"}).json()
    assert (made["status"], made["error_code"]) == ("canceled", "deadline_exceeded")
    assert (datetime.fromisoformat(made["deadline"]) - datetime.fromisoformat(made["created_at"])).total_seconds() == 1


@pytest.mark.parametrize(
    ("told", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m45s", 5445), ("2h30m", 9000), ("1m30", 90)]
)
def test_a_time_may_be_told_in_several_units(told: str, seconds: int) -> None:
    assert asking._seconds(told) == seconds


@pytest.mark.parametrize("told", ["", "0s", "x", "30m1h", "1.5h", "-5s", "1d"])
def test_a_time_that_is_none_is_refused_by_its_header(told: str) -> None:
    with pytest.raises(errors.InvalidInputError, match="Cancel-After must be"):
        asking._seconds(told)


@pytest.mark.parametrize(
    ("prefer", "waits"), [("wait=30", True), ("respond-async, wait=30", True), ("no-wait=30", False), ("", False)]
)
def test_a_wait_is_asked_for_by_its_name(rita: Tenant, tiny: str, prefer: str, waits: bool) -> None:
    asked = {"version": "quick" if waits else "slow", "input": {"prompt": PROMPT, "input_image": tiny}}
    made = rita.post("/v1/predictions", asked, headers={"Prefer": prefer}).json()
    assert (made["status"] == "succeeded") == waits
    rita.post(f"/v1/predictions/{made['id']}/cancel")
    assert rita.finished(made["id"])["status"] == ("succeeded" if waits else "cancelled")


@pytest.mark.parametrize("prefer", ["wait=0", "wait=61", "wait=x", "wait=9999"])
def test_a_wait_that_is_none_is_refused(rita: Tenant, tiny: str, prefer: str) -> None:
    asked = {"version": "quick", "input": {"prompt": PROMPT, "input_image": tiny}}
    assert rita.post("/v1/predictions", asked, headers={"Prefer": prefer}).status_code == 422


def test_a_failed_prediction_raises(client: Client, tiny: str) -> None:
    with pytest.raises(ModelError, match="prompt"):
        client.run("darkroom/quick", input={"prompt": "child porn", "input_image": tiny})


def test_predictions_are_listed_page_by_page(client: Client, rita: Tenant, tiny: str) -> None:
    made = client.predictions.create(version="quick", input={"prompt": PROMPT, "input_image": tiny}, wait=True)
    page = client.predictions.list()
    assert made.id in [one.id for one in page.results]


def test_predictions_of_a_time_are_listed(client: Client, rita: Tenant, tiny: str) -> None:
    first, second = (
        client.predictions.create(version="quick", input={"prompt": "x", "input_image": tiny}) for _ in range(2)
    )

    def listed(**asked: str) -> list[str]:
        answer = requests.get(f"{rita.url}/v1/predictions", asked, headers=rita.headers, timeout=10)
        assert answer.status_code == 200, answer.text
        found = [one["id"] for one in answer.json()["results"]]
        return [name for name, made in (("first", first), ("second", second)) if made.id in found]

    assert listed() == ["first", "second"]
    at = str(second.created_at)
    assert listed(created_after=at) == ["second"]
    assert listed(created_before=at) == ["first"]
    assert listed(created_after=at, created_before=at) == listed(source="web") == []
    for wrong in ({"created_after": "yesterday"}, {"source": "api"}):
        refused = requests.get(f"{rita.url}/v1/predictions", wrong, headers=rita.headers, timeout=10)
        assert refused.status_code == 422
        assert next(iter(wrong)) in refused.json()["detail"]


def test_models_are_listed_with_their_owners(client: Client) -> None:
    found = {f"{model.owner}/{model.name}" for model in client.models.list()}
    assert {"black-forest-labs/FLUX.2-dev", "darkroom/quick"} <= found
    assert all(client.models.get(name).latest_version for name in found)


def test_a_version_that_was_handed_out_can_be_asked_for(client: Client, tiny: str) -> None:
    made = client.predictions.create(version="quick", input={"prompt": PROMPT, "input_image": tiny}, wait=True)
    again = client.run(f"darkroom/quick:{made.version}", input={"prompt": PROMPT, "input_image": tiny, "seed": 0})
    assert str(again).startswith("http")


def test_bad_input_is_told_by_name(client: Client, tiny: str) -> None:
    with pytest.raises(ReplicateError) as refused:
        client.predictions.create(version="quick", input={"prompt": PROMPT, "input_image": tiny, "guidance": 11})
    assert refused.value.status == 422
    assert refused.value.detail
    assert refused.value.detail.startswith("guidance must be")


def test_a_webhook_is_verified_by_replicates_own_helper(
    client: Client, tiny: str, hooks: tuple[str, Receiving]
) -> None:
    url, receiving = hooks
    with receiving() as received:
        prediction = client.predictions.create(
            version="quick", input={"prompt": PROMPT, "input_image": tiny}, webhook=url,
            webhook_events_filter=["start", "completed"],
        )  # fmt: skip
        eventually(lambda: len(received) == 2)
    secret = client.webhooks.default.secret()
    for one in received:
        Webhooks.validate(headers=one.headers, body=one.body.decode(), secret=secret)
        Webhook(secret.key).verify(one.body, one.headers)
    assert {one.json["id"] for one in received} == {prediction.id}
    assert "succeeded" in [one.json["status"] for one in received]


def test_an_upload_of_another_tenant_cannot_be_used(rita: Tenant, bella: Tenant) -> None:
    upload = requests.post(
        f"{rita.url}/v1/files",
        headers=rita.headers,
        files={"content": ("a.png", io.BytesIO(small_picture()))},
        timeout=10,
    )
    link = upload.json()["urls"]["get"]
    assert requests.get(link, timeout=10).content == small_picture()
    own = rita.post("/v1/predictions", {"version": "quick", "input": {"prompt": PROMPT, "input_image": link}})
    assert rita.finished(own.json()["id"])["status"] == "succeeded"
    other = bella.post("/v1/predictions", {"version": "quick", "input": {"prompt": PROMPT, "input_image": link}})
    assert (other.status_code, other.json()["invalid_fields"][0]["field"]) == (422, "input_image")


@pytest.fixture
def link(rita: Tenant) -> str:
    made = rita.post(
        "/v1/predictions",
        {"version": "flux-2-dev", "input": {"prompt": PROMPT, "num_inference_steps": 1}},
        headers={"Prefer": "wait=30"},
    )
    return str(made.json()["output"])


def test_a_link_is_good_without_a_key_and_no_other_is(link: str) -> None:
    assert requests.get(link, timeout=10).status_code == 200
    altered = link[:-2] + ("A" if link[-2] != "A" else "B") + link[-1]
    assert requests.get(altered, timeout=10).status_code == 404
    assert requests.get(link.replace(".webp", ".png"), timeout=10).status_code == 404
    before, _, proof = link.partition("?proof=")
    later = str(int(proof.partition(".")[0]) + 1)
    assert requests.get(f"{before}?proof={later}.{proof.partition('.')[2]}", timeout=10).status_code == 404


def test_a_model_is_known_by_owner_and_name(client: Client, rita: Tenant) -> None:
    model = client.models.get(MODEL)
    assert (model.owner, model.name, model.visibility) == ("black-forest-labs", "flux-kontext-dev", "public")
    assert model.latest_version
    assert [one.id for one in model.versions.list()] == [model.latest_version.id]
    # The same address is Forge's and OpenAI's.
    assert rita.get(f"/v1/models/{MODEL}").json()["object"] == "model"
    assert "owner" not in rita.get("/v1/models/flux-kontext-dev").json()
    with pytest.raises(ReplicateError) as refused:
        client.models.get("nobody/nothing")
    assert (refused.value.status, bool(refused.value.title)) == (404, True)


def test_any_version_of_a_known_model_is_the_one_that_is_served(rita: Tenant, tiny: str) -> None:
    pinned = f"darkroom/quick:{'a' * 64}"
    made = rita.post("/v1/predictions", {"version": pinned, "input": {"prompt": PROMPT, "input_image": tiny}})
    served = made.json()["version"]
    assert (made.status_code, made.headers["Darkroom-Version"]) == (201, served)
    read = rita.get(f"/v1/models/darkroom/quick/versions/{'a' * 64}")
    assert (read.json()["id"], read.headers["Darkroom-Version"]) == (served, served)
    exact = rita.post(
        "/v1/predictions", {"version": f"darkroom/quick:{served}", "input": {"prompt": PROMPT, "input_image": tiny}}
    )
    assert "Darkroom-Version" not in exact.headers


def test_a_version_without_its_model_says_what_can_be_done(rita: Tenant, tiny: str) -> None:
    refused = rita.post("/v1/predictions", {"version": "a" * 64, "input": {"prompt": PROMPT, "input_image": tiny}})
    assert refused.status_code == 404
    assert "give them owner/name, or have the operator add the version" in refused.json()["detail"]


def test_an_account_is_the_keys_tenant(client: Client, rita: Tenant) -> None:
    assert client.accounts.current().username == rita.name
