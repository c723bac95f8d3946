"""A submission is one value: what is kept of it is bounded, and its fingerprint is over all that was asked for."""

import json
from typing import Any

import pytest

from storage.contracts import edits, errors, submissions
from tests.stores.conftest import a_submission, an_edit

SENT = edits.SentPicture(data=b"one", content_type="image/png", transparent=False)
DELIVERY = edits.Delivery(put_url="http://b/1?sig", get_url="http://b/1?gis", destination="http://b")
WEBHOOK = submissions.Webhook(url="http://w", dialect="bfl", base="http://here", secret="s")


def _fingerprint(edit: dict[str, Any] | None = None, **changes: object) -> str:
    whole = an_edit(**{"references": (SENT,), "deliver": DELIVERY, **(edit or {})})
    return a_submission(**{"edit": whole, "webhook": WEBHOOK, "echo": {"go_fast": True}, **changes}).fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook": WEBHOOK.model_copy(update={"base": "http://there"})},
        {"edit": {"deliver": DELIVERY.model_copy(update={"put_url": "http://b/2?sig"})}},
        {"idempotency_key": "k"},
    ],
)
def test_what_differs_from_one_sending_to_the_next_is_not_in_a_fingerprint(changes: dict[str, Any]) -> None:
    assert _fingerprint(**changes) == _fingerprint()


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook": None},
        {"webhook": WEBHOOK.model_copy(update={"secret": "other"})},
        {"edit": {"deliver": DELIVERY.model_copy(update={"destination": "http://c"})}},
        {"edit": {"references": (SENT.model_copy(update={"data": b"two"}),)}},
        {"edit": {"references": (), "mask": SENT}},
        {"edit": {"steps": 9}},
        {"priority": submissions.LOW_PRIORITY},
        {"deadline_s": 5},
        {"echo": {"go_fast": False}},
        {"pins": submissions.Pins(region="here")},
    ],
)
def test_everything_else_is(changes: dict[str, Any]) -> None:
    assert _fingerprint(**changes) != _fingerprint()


def test_what_the_ledger_keeps_is_bounded() -> None:
    with pytest.raises(errors.PayloadTooLargeError, match="256 KiB"):
        a_submission(edit=an_edit(prompt="x" * submissions.MAX_BYTES)).recorded()
    longest = a_submission(edit=an_edit(prompt="😀" * 32_000), echo={"url": "x" * 2048}).recorded()
    assert len(longest.encode()) < submissions.MAX_BYTES


def test_of_what_is_shown_again_the_largest_goes_first() -> None:
    kept = submissions.bounded({"long": "x" * 30_000, "longer": ["y" * 2000] * 20, "seed": 7, "nothing": None})
    assert kept == {"long": "x" * 30_000, "seed": 7}
    assert len(json.dumps(kept)) <= submissions.MAX_ECHO_BYTES


def test_of_very_many_fields_each_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda value: measured.append(value) or dumps(value))
    kept = submissions.bounded({f"field{n}": "x" * 100 for n in range(4000)})
    assert len(measured) <= 4001
    assert len(dumps(kept)) <= submissions.MAX_ECHO_BYTES


def test_no_message_and_no_field_of_an_error_grows_with_what_was_sent() -> None:
    error = errors.InvalidInputError("x" * 10**6, field="y" * 10**6)
    assert (len(error.message), len(str(error)), len(error.field or "")) == (2000, 2000, 200)


def test_a_record_has_the_version_of_what_a_worker_must_heed() -> None:
    plain = a_submission()
    two = {"references": (edits.StoredPicture(key="a"), edits.StoredPicture(key="b"))}
    mask = edits.StoredPicture(key="m")

    def masked(**changes: object) -> submissions.Submission:
        return plain.model_copy(update={"edit": plain.edit.model_copy(update={"mask": mask, **changes})})

    assert plain.record_version == edits.PLAIN_VERSION
    assert plain.model_copy(update={"kept_s": 600.0}).record_version == edits.ERASED_EARLY_VERSION
    assert masked(references=two["references"][:1]).record_version == edits.PLAIN_VERSION
    assert masked(**two).record_version == edits.RECORD_VERSION == 5
