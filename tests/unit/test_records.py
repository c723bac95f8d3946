"""Records that an earlier version wrote can still be read."""

from storage.contracts import edits, generations
from tests.stores.conftest import an_edit


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
