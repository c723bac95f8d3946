"""Records that an earlier version wrote can still be read."""

from storage.contracts import edits, generations


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
