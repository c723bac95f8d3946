"""The pages that list what the code declares say what it declares."""

import pytest

from api.dialects.oxen import contract, envelope
from infra import reference


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_as_the_code_is(name: str) -> None:
    written = (reference.DOCS / name).read_text()
    assert written == reference.PAGES[name](), "run python -m infra.reference"


def test_every_setting_says_what_it_does() -> None:
    empty = [
        line for line in reference.settings().splitlines() if line.startswith("| `") and line.split(" | ")[2] == " |"
    ]
    assert empty == []


def test_openapi_names_every_field_of_an_edit() -> None:
    others = {"model", "input_image", "mask_image", "response_format"}
    assert contract.FIELDS.keys() | others == envelope.NAMES
