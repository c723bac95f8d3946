"""Image bases are pinned to digests; the registry's answers come from a script in docker's place."""

import os
from pathlib import Path

import pytest

from infra import pin_images

DIGEST = "sha256:" + "ab" * 32


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
    assert "".join(once).count(f"@{DIGEST}") == len(copies) + 1, "each Dockerfile's one, and both of the compose file"
    assert [text.replace(f"@{DIGEST}", "") for text in once] == before


def test_a_registry_without_an_answer_changes_nothing(
    copies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _docker(tmp_path, monkeypatch, "echo 'no such image' >&2; exit 1")
    before = [file.read_text() for file in copies]
    with pytest.raises(SystemExit, match="no such image"):
        pin_images.pin(copies)
    assert [file.read_text() for file in copies] == before
