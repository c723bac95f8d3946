"""Records that an earlier version wrote can still be read."""

import hashlib
import json

from storage.contracts import edits, generations
from tests.stores.conftest import an_edit

FIELDS = {2: "818f8897ef19"}
"""Of an edit as workers read it, by the version of the records."""


def test_an_edit_with_another_field_is_a_record_of_another_version() -> None:
    found = json.dumps(_fields(edits.Edit.model_json_schema()), sort_keys=True)
    digest = hashlib.sha256(found.encode()).hexdigest()[:12]
    assert FIELDS[generations.RECORD_VERSION] == digest, "raise RECORD_VERSION, and note the new digest beside it"


def _fields(schema: dict[str, object]) -> dict[str, object]:
    """The names of all fields, and of those below."""
    parts: dict[str, dict[str, object]] = {"Edit": schema, **schema.get("$defs", {})}  # type: ignore[dict-item]
    return {name: sorted(part.get("properties", {})) for name, part in parts.items()}  # type: ignore[call-overload]


def test_an_edit_that_asks_for_nothing_new_is_written_as_earlier_versions_read_it() -> None:
    assert "upsample_temperature" not in an_edit().model_dump_json()
    assert (
        edits.Edit.model_validate_json(an_edit(upsample_temperature=0.2).model_dump_json()).upsample_temperature == 0.2
    )


def test_an_edit_that_named_its_aspect_ratio() -> None:
    recorded = (
        '{"model":"m","prompt":"p","references":[],"aspect_ratio":1.5,"steps":4,"guidance":2.5,"seed":1,'
        '"output_format":"webp","quality":80}'
    )
    edit = edits.Edit.model_validate_json(recorded)
    assert edit.canvas.ratio == 1.5
    assert edits.Edit.model_validate_json(edit.model_dump_json()) == edit


def test_a_result_without_a_receipt() -> None:
    recorded = (
        '{"key":"k","content_type":"image/webp","width":1,"height":1,"size_bytes":9,"fit":"","execution_ms":5,'
        '"weights":"w"}'
    )
    assert generations.Result.model_validate_json(recorded).receipt is None
