"""What is stored, and the URL that fetches it."""

import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.conftest import Tenant

pytestmark = pytest.mark.usefixtures("nobody_waits")


@pytest.fixture
def url(alice: Tenant, tiny: str) -> str:
    return str(alice.finished(alice.enqueue(tiny, output_format="jpg"))["result_url"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_downloads_it_without_any_key(url: str, tmp_path: Path) -> None:
    target = tmp_path / "result.jpg"
    subprocess.run(["curl", "--silent", "--fail", "--output", str(target), url], check=True)
    assert target.read_bytes().startswith(b"\xff\xd8")


def test_a_download_has_the_generations_name(alice: Tenant, tiny: str) -> None:
    generation = alice.finished(alice.enqueue(tiny, output_format="jpg"))
    told = requests.get(generation["download_url"], timeout=10).headers["Content-Disposition"]
    assert told == f'inline; filename="{generation["generation_id"]}.jpg"'


def test_it_says_what_it_is(url: str) -> None:
    assert requests.get(url, timeout=10).headers["Content-Type"] == "image/jpeg"


@pytest.mark.parametrize("place", range(0, 64, 9))
def test_a_signature_changed_by_one_character_is_refused(url: str, place: int) -> None:
    head, _, signature = url.rpartition("X-Amz-Signature=")
    assert len(signature) == 64
    changed = "0" if signature[place] != "0" else "1"
    forged = f"{head}X-Amz-Signature={signature[:place]}{changed}{signature[place + 1 :]}"
    assert requests.get(forged, timeout=10).status_code == 403


def test_another_object_cannot_be_had_with_it(url: str) -> None:
    parts = urlsplit(url)
    other = parts._replace(path=parts.path.replace("/alice/", "/bob/")).geturl()
    assert requests.get(other, timeout=10).status_code == 403
    assert requests.get(url.partition("?")[0], timeout=10).status_code in (400, 403)


def test_it_is_signed_for_what_is_left_of_seven_days(url: str) -> None:
    assert 604_000 < int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]) <= 604_800
