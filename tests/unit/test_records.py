"""Records that an earlier version wrote can still be read."""

import hashlib
import json

from storage.contracts import edits, results, submissions
from tests.stores.conftest import a_submission, an_edit

FIELDS = {4: "5d3d893a991b", 5: "5d3d893a991b"}
"""Of a submission as workers read it, by the version of the records."""


def test_an_edit_with_another_field_is_a_record_of_another_version() -> None:
    found = json.dumps(_fields(submissions.Submission.model_json_schema()), sort_keys=True)
    digest = hashlib.sha256(found.encode()).hexdigest()[:12]
    assert FIELDS[edits.RECORD_VERSION] == digest, "raise RECORD_VERSION, and note the new digest beside it"


def _fields(schema: dict[str, object]) -> dict[str, object]:
    """The names of all fields, and of those below."""
    parts: dict[str, dict[str, object]] = {"Submission": schema, **schema.get("$defs", {})}  # type: ignore[dict-item]
    names = {name: set(part.get("properties", {})) for name, part in parts.items()}  # type: ignore[call-overload]
    names["Submission"] -= submissions.NOT_RECORDED
    return {name: sorted(fields) for name, fields in names.items()}


def test_a_submission_reads_back_as_it_was_recorded_and_defaults_are_left_out() -> None:
    plain = a_submission()
    assert "upsample_temperature" not in plain.recorded()
    rich = a_submission(
        edit=an_edit(
            references=({"kind": "stored", "key": "a"}, {"kind": "remote", "url": "http://b"}),
            mask={"kind": "stored", "key": "m"},
            deliver=edits.Delivery(put_url="p", get_url="g", destination="d"),
            upsample_temperature=0.2,
        ),
        seed=0,
        deadline_s=3,
        pins=submissions.Pins(gpu_types=("h100",), max_cost_usd=0.1),
        webhook=submissions.Webhook(url="http://w", dialect="bfl", moments=("start", "completed"), secret="s"),
        inline=True,
        echo={"go_fast": True, "list": [1, "two"]},
    )
    for submission in (plain, rich):
        record = {"submission": submission.recorded()}
        assert submissions.Submission.from_record(record) == submission
        assert submissions.recorded_edit(submission.recorded()) == submission.edit


def test_an_edit_that_named_its_aspect_ratio() -> None:
    recorded = (
        '{"model":"m","prompt":"p","references":[],"aspect_ratio":1.5,"steps":4,"guidance":2.5,"seed":1,'
        '"output_format":"webp","quality":80}'
    )
    edit = edits.Edit.model_validate_json(recorded)
    assert edit.canvas.ratio == 1.5
    assert submissions.recorded_edit(recorded) == edit


def test_a_result_without_a_receipt() -> None:
    recorded = (
        '{"key":"k","content_type":"image/webp","width":1,"height":1,"size_bytes":9,"fit":"","execution_ms":5,'
        '"weights":"w"}'
    )
    assert results.Result.model_validate_json(recorded).receipt is None
