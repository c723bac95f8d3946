"""What is asked for is what comes back, and nothing is resized twice or in silence."""

import pytest

from storage.contracts import errors
from storage.contracts.geometry import Canvas, Frame, Size, planned
from storage.settings import StoreSettings


def _frame(model: str) -> Frame:
    return StoreSettings().read_catalog().model(model).frame


def _size(text: str) -> Size:
    return Size.parse(text)


KONTEXT, FLUX2 = _frame("flux-kontext-dev"), _frame("flux-2-dev")


@pytest.mark.parametrize(
    ("canvas", "original", "read", "render", "output", "note"),
    [
        (Canvas(), "512x512", "1024x1024", "1024x1024", "1024x1024", "input 512x512 scaled to 1024x1024"),
        (Canvas(), "1184x880", "1184x880", "1184x880", "1184x880", "input as it is"),
        (Canvas(ratio=16 / 9), "512x512", "1024x1024", "1392x752", "1392x752", "input 512x512 scaled to 1024x1024"),
        (Canvas(), "1x1", "1024x1024", "1024x1024", "1024x1024", "input 1x1 scaled to 1024x1024"),
        (
            Canvas(size=_size("1140x1024")), "1024x1024", "1024x1024", "1152x1024", "1140x1024",
            "input as it is; rendered at 1152x1024, cropped to 1140x1024",
        ),
        (Canvas(size=_size("1024x768")), "1024x1024", "1024x1024", "1024x768", "1024x768", "input as it is"),
        (
            Canvas(as_input=True), "4000x3000", "1184x880", "1184x880", "4000x3000",
            "input 4000x3000 scaled to 1184x880; rendered at 1184x880, scaled to 4000x3000",
        ),
        (
            Canvas(as_input=True), "1180x880", "1184x880", "1184x880", "1180x880",
            "input 1180x880 scaled to 1184x880; rendered at 1184x880, cropped to 1180x880",
        ),
    ],
)  # fmt: skip
def test_kontext_reads_and_renders_preferred_sizes_and_gives_back_what_was_asked(
    canvas: Canvas, original: str, read: str, render: str, output: str, note: str
) -> None:
    found = planned(KONTEXT, canvas, [_size(original)])
    assert (str(found.references[0]), str(found.render), str(found.output)) == (read, render, output)
    assert found.note == note


@pytest.mark.parametrize(
    ("original", "read"),
    [
        ("1024x1024", "1024x1024"),
        ("640x480", "640x480"),
        ("645x483", "640x480"),
        ("4000x3000", "1184x880"),
        ("1x1", "64x64"),
        ("100x20", "320x64"),
        ("800x100", "768x96"),
        ("8000x1000", "2816x352"),
    ],
)
def test_flux2_keeps_the_shape_of_references_up_to_a_megapixel(original: str, read: str) -> None:
    found = planned(FLUX2, Canvas(), [_size(original)]).references[0]
    assert str(found) == read
    assert found.pixels <= 2**20
    assert found.ratio <= 8
    assert found.width % 16 == found.height % 16 == 0
    assert min(found.width, found.height) >= 64


def test_a_reference_too_long_and_thin_for_the_model_is_refused() -> None:
    with pytest.raises(errors.InvalidInputError, match="at most 8 times as long as wide for this model; got 900x100"):
        planned(FLUX2, Canvas(), [_size("900x100")])


@pytest.mark.parametrize(("pixels", "low", "high"), [(2**19, 0.45, 0.55), (2**20, 0.9, 1.1), (2**21, 1.9, 2.1)])
def test_a_number_of_pixels_is_met_with_the_ratio_asked_for(pixels: int, low: float, high: float) -> None:
    render = planned(FLUX2, Canvas(ratio=4 / 3, pixels=pixels), []).render
    assert low < render.pixels / 2**20 < high
    assert abs(render.ratio - 4 / 3) < 0.05


@pytest.mark.parametrize("original", ["1000x2000", "3000x1000", "800x100", "640x480"])
def test_giving_back_the_inputs_size_does_not_stretch_what_flux2_made(original: str) -> None:
    found = planned(FLUX2, Canvas(as_input=True), [_size(original)])
    assert str(found.output) == original
    assert abs(found.render.ratio / found.output.ratio - 1) < 0.03


def test_without_any_picture_the_result_is_square_unless_asked_otherwise() -> None:
    assert str(planned(FLUX2, Canvas(), []).render) == "1024x1024"
    assert planned(FLUX2, Canvas(), []).note == ""


def test_every_kontext_size_is_one_the_pipeline_does_not_change() -> None:
    for text in KONTEXT.sizes:
        found = planned(KONTEXT, Canvas(), [_size(text)])
        assert {str(found.references[0]), str(found.render), str(found.output)} == {text}


@pytest.mark.parametrize(
    ("size", "field", "sentence"),
    [
        ("255x512", "width", "width must be an integer between 256 and 2048; got 255"),
        ("512x2049", "height", "height must be an integer between 256 and 2048; got 2049"),
        ("2048x2048", "width", "width x height may be at most 1800000 pixels; got 2048x2048"),
    ],
)
def test_a_size_out_of_range_is_refused_by_name(size: str, field: str, sentence: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=sentence) as refused:
        KONTEXT.check(_size(size))
    assert refused.value.field == field


def test_a_size_that_is_no_multiple_of_sixteen_is_refused_in_a_catalog() -> None:
    with pytest.raises(ValueError, match="1000x1000 is no multiple of 16"):
        Frame(sizes=("1000x1000",))


@pytest.mark.parametrize(
    ("canvas", "read", "note"),
    [
        (Canvas(ratio=16 / 9), "1392x752", "input 512x512 cropped and scaled to 1392x752"),
        (Canvas(ratio=1), "1024x1024", "input 512x512 scaled to 1024x1024"),
    ],
)
def test_a_model_that_knows_one_shape_reads_the_middle_of_a_picture(canvas: Canvas, read: str, note: str) -> None:
    geometry = planned(KONTEXT.model_copy(update={"in_shape": True}), canvas, [_size("512x512")])
    assert (geometry.references, geometry.render, geometry.note) == ((_size(read),), _size(read), note)
