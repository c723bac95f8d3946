"""The shape of the code itself: what a newcomer can rely on when opening any file."""

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT) for room in ("api", "storage", "workers") for path in (ROOT / room).rglob("*.py")
)


def _lines(path: Path) -> int:
    return len((ROOT / path).read_text().splitlines())


def test_modules_are_small() -> None:
    assert {str(path): _lines(path) for path in MODULES if _lines(path) > 250} == {}
    assert statistics.median(_lines(path) for path in MODULES) <= 100


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=str)
def test_a_package_says_what_belongs_in_it(path: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / path).read_text())), "a package opens with a docstring"


def test_event_streams_are_set_up_in_one_place() -> None:
    calls = [
        str(path)
        for path in MODULES
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "EventSourceResponse"
    ]
    assert calls == ["api/http/streams.py"]
