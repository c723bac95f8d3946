"""Image bases are pinned to digests; the registry's answers come from a script in docker's place."""

import os
import re
from pathlib import Path

import pytest

from infra import pin_images

DIGEST = "sha256:" + "ab" * 32
ANY = re.compile("sha256:[0-9a-f]{64}")


def test_every_image_that_is_not_ours_is_pinned() -> None:
    ours = re.compile(r"darkroom-(api|housekeeping|worker)$")
    for file in pin_images.FILES:
        named = re.findall(r"^(?:FROM |\s+image: )(\S+)", file.read_text(), re.MULTILINE)
        assert named
        assert [name for name in named if not (ANY.search(name) or ours.search(name))] == []


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    made = []
    for file in pin_images.FILES:
        made.append(tmp_path / file.name)
        made[-1].write_text(file.read_text())
    return made


def _docker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_every_base_is_pinned_and_pinned_anew(
    copies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _docker(tmp_path, monkeypatch, f"echo {DIGEST}")
    before = [file.read_text() for file in copies]
    pin_images.pin(copies)
    once = [file.read_text() for file in copies]
    pin_images.pin(copies)
    assert [file.read_text() for file in copies] == once
    assert "".join(once).count(f"@{DIGEST}") == len(copies) + 1, "one of each file, and both of the compose file"
    assert [ANY.sub(DIGEST, text) for text in before] == once


def test_a_registry_without_an_answer_changes_nothing(
    copies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _docker(tmp_path, monkeypatch, "echo 'no such image' >&2; exit 1")
    before = [file.read_text() for file in copies]
    with pytest.raises(SystemExit, match="no such image"):
        pin_images.pin(copies)
    assert [file.read_text() for file in copies] == before
