"""The samples that Oxen.ai publishes run against Darkroom with only host, key and picture URL changed.

`DARKROOM_REFERENCE_PAGES` names a folder with the published pages; what they hold is read from there and run. The samples
written below do the same in our words, so that the test remains where the pages are not at hand.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from infra import embedded
from tests import web
from tests.conftest import TENANTS, encoded

PAGES = Path(os.environ.get("DARKROOM_REFERENCE_PAGES") or "/nonexistent")
PAGE = PAGES / "003_af342f196c3d7314.txt"
PICTURE_URL = re.compile(r"https://hub\.oxen\.ai/api/repos/[^\"]+\.png")

OUR_AWK = """
ID=$(curl -s "$BASE/api/ai/queue" -H "Authorization: Bearer $OXEN_API_KEY" -H "Content-Type: application/json" \\
  -d '{"model": "flux-kontext-dev", "prompt": "x", "input_image": "PICTURE"}' | jq -r '.generations[0].generation_id')
curl -sN "$BASE/api/events" -H "Authorization: Bearer $OXEN_API_KEY" \\
  | awk -v id="$ID" '/^event: media_generation_completed$/ { hit = 1; next }
      hit && /^data: / { if (index($0, "\\"generation_id\\":\\"" id "\\"")) { print substr($0, 7); exit } hit = 0 }' | jq .
"""


def published() -> list[tuple[str, str, str]]:
    """(name, language, code) of every fenced sample of the page."""
    if not PAGE.exists():
        return []
    found = re.findall(r"^( *)```(bash|python)[^\n]*\n(.*?)^\1```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [(f"{n}-{language}", language, textwrap.dedent(code)) for n, (_, language, code) in enumerate(found)]


@pytest.fixture
def picture(stack: embedded.Stack) -> Iterator[str]:
    port = int(stack.options.environment["TEST_IMAGE_PORT"])
    with web.serving(port, {"/ox.png": web.picture(encoded(Image.new("RGB", (320, 200), "orange"), "PNG"))}):
        yield f"http://127.0.0.1:{port}/ox.png"


def _run(stack: embedded.Stack, language: str, code: str, folder: Path) -> str:
    commands = {"bash": ["bash", "-c", code], "python": [sys.executable, "-c", code]}
    links = folder / "bin"
    links.mkdir()
    mawk = shutil.which("mawk")
    assert mawk, "mawk is the awk of Debian and Ubuntu"
    (links / "awk").symlink_to(mawk)
    environment = {
        **os.environ,
        "PATH": f"{links}:{os.environ['PATH']}",
        "OXEN_API_KEY": TENANTS["carol"],
        "BASE": stack.url,
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(commands[language], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


TOOLS = [tool for tool in ("mawk", "jq", "curl") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(TOOLS), reason=f"the samples need {', '.join(TOOLS)}")

ANSWERS = re.compile(r"""['"](result_)?url['"]: ?['"]http|Result: http|"json_request_schema":""")


@pytest.mark.skipif(not PAGE.exists(), reason="the published pages are not at hand (DARKROOM_REFERENCE_PAGES)")
@pytest.mark.parametrize(("name", "language", "code"), published(), ids=[name for name, _, _ in published()])
def test_a_published_sample_runs(
    stack: embedded.Stack, picture: str, tmp_path: Path, name: str, language: str, code: str
) -> None:
    code = PICTURE_URL.sub(picture, code).replace("https://hub.oxen.ai", stack.url)
    if language == "python":
        # A bare JSON false stands in the page's Python samples: a fault of the page.
        code = code.replace('"disable_safety_checker": false', '"disable_safety_checker": False')
    output = _run(stack, language, code, tmp_path)
    assert ANSWERS.search(output), output


@pytest.mark.skipif(not PAGE.exists(), reason="the published pages are not at hand (DARKROOM_REFERENCE_PAGES)")
def test_the_page_has_all_its_samples() -> None:
    languages = [language for _, language, _ in published()]
    assert (languages.count("bash"), languages.count("python")) == (7, 6)


def test_a_shell_that_listens_with_mawk_is_answered_at_once(
    stack: embedded.Stack, picture: str, tmp_path: Path
) -> None:
    data = json.loads(_run(stack, "bash", OUR_AWK.replace("PICTURE", picture), tmp_path))
    assert data["status"] == "succeeded"
