"""Tables on a narrow terminal."""

import pytest
from rich.console import Console

from darkroom.cli import printing

ID = "50e7b8fb-bf0d-4162-954e-97dd41700000"


@pytest.mark.parametrize("width", [44, 60, 120])
def test_what_other_commands_are_given_is_never_shortened(width: int) -> None:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(printing.drawn_table(("id", "model", "prompt"), [(ID, "flux-2-dev-fast", "make it blue " * 9)]))
    assert ID in captured.get()
