"""Filters and content credentials through the whole service."""

import stat
from collections.abc import Iterator

import pytest
import requests

from infra import embedded
from tests.conftest import TENANTS, Tenant, data_uri, running_stack
from tests.faults.conftest import SLEEPERS


def test_a_filtered_prompt_fails_with_a_verdict_and_without_a_picture(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, prompt="Nudify the person on the left")
    found = alice.finished(id_)
    assert (found["status"], found["error_code"], found["result_url"]) == ("failed", "content_filtered", None)
    assert found["attempts"] == 1, "asking again changes nothing"
    details = found["error_details"]
    assert (details["stage"], details["filter"], details["score"], details["threshold"]) == ("prompt", "words", 1, 1)


def test_filters_cannot_be_switched_off_unless_the_operator_allows_it(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "disable_safety_checker": True}
    answer = alice.post("/api/ai/queue", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "disable_safety_checker"


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A stack whose operator lets alice pass by the filters."""
    allowed = {"DARKROOM_UNFILTERED_TENANTS": '["alice"]', **SLEEPERS}
    with running_stack(tmp_path_factory.mktemp("trusting"), **allowed) as stack:
        yield stack.url


def test_whom_the_operator_allows_it_passes_by_the_filters(trusting: str, tiny: str) -> None:
    alice, bob = (Tenant(trusting, name, TENANTS[name]) for name in ("alice", "bob"))
    asked = {"prompt": "nudify", "disable_safety_checker": True}
    assert alice.finished(alice.enqueue(tiny, **asked))["status"] == "succeeded"
    assert alice.finished(alice.enqueue(tiny, prompt="nudify"))["error_code"] == "content_filtered"
    assert bob.post("/api/ai/queue", {"model": "quick", "input_image": tiny, **asked}).status_code == 400


@pytest.mark.parametrize("output_format", ["png", "jpg", "webp"])
def test_a_result_is_known_to_come_from_here(alice: Tenant, tiny: str, output_format: str) -> None:
    id_ = alice.enqueue(tiny, output_format=output_format)
    data = requests.get(alice.finished(id_)["result_url"], timeout=10).content
    for told in (
        alice.post("/api/ai/verify", {"image": data_uri(data)}),
        requests.post(f"{alice.url}/api/ai/verify", files={"image": data}, headers=alice.headers, timeout=10),
    ):
        found = told.json()
        assert (found["signed"], found["valid"], found["ours"], found["generation_id"]) == (True, True, True, id_)
        assert found["source_type"].endswith("/compositeWithTrainedAlgorithmicMedia")


def test_a_picture_from_elsewhere_is_not(alice: Tenant, photograph: str) -> None:
    found = alice.post("/api/ai/verify", {"image": photograph}).json()
    assert found == {"signed": False, "valid": False, "ours": False}


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (None, "image is required"),
        ("http://127.0.0.1/x.png", "image is required"),
        (data_uri(b"text"), "image must be"),
    ],
)
def test_what_is_no_picture_cannot_be_verified(alice: Tenant, image: str | None, sentence: str) -> None:
    answer = alice.post("/api/ai/verify", {"image": image})
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]


def test_the_stacks_data_is_its_users_alone(stack: embedded.Stack) -> None:
    assert stat.S_IMODE(stack.options.data_dir.stat().st_mode) == 0o700
