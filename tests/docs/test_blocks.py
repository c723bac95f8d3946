"""Every block of shell and Python in the pages for users runs as it stands, in order, against a running stack."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/python.md",
    "docs/command-line.md",
    "docs/batches.md",
    "docs/dialects.md",
    "docs/security.md",
)
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTING_UP = re.compile(r"^(make|pip|docker|darkroom-admin) ", re.MULTILINE)
"""What sets things up is tried by what calls it: the test run itself, and the tests of those commands."""


def _here(text: str, stack: embedded.Stack) -> str:
    """A block as it is for this stack."""
    host = stack.url.removeprefix("http://")
    return (
        text.replace("localhost:8000", host)
        .replace("127.0.0.1:8000", host)
        .replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    )


COMPLAINT = re.compile("error|too long|not found", re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_to_run_runs(stack: embedded.Stack, tmp_path: Path, page: str) -> None:
    blocks = [(kind, text) for kind, text in BLOCK.findall((ROOT / page).read_text()) if not SETTING_UP.search(text)]
    assert blocks
    # Too large for the argument of a program.
    with Image.open(PHOTOGRAPH) as photo:
        photo.resize((1024, 1024)).save(tmp_path / "photo.jpg", quality=95)
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    environment = {
        **os.environ,
        "DARKROOM_URL": stack.url,
        "DARKROOM_API_KEY": TENANTS["penny" if page == "docs/security.md" else "erin"],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for kind, text in blocks:
        code = _here(text, stack)
        runner = ["bash", "-eu", "-c", code] if kind == "sh" else [sys.executable, "-c", code]
        done = subprocess.run(
            runner, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        # Of a pipe only the last program's status is known.
        assert not COMPLAINT.search(done.stderr), f"{text}\n{done.stdout}\n{done.stderr}"


INSTALL = re.compile(r"pip install '?([\w.\[\]/-]+)")
FOREIGN = {"gguf", "bitsandbytes", "openai"}
"""What a page tells to install of others."""


def test_no_page_installs_a_package_of_somebody_elses_by_our_name() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "client" / "README.md"]:
        for told in INSTALL.findall(page.read_text()):
            assert told.startswith(".") or told in FOREIGN, (
                f"{page.name}: {told}: nothing of ours is on the public registry"
            )
