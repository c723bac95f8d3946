"""What may be fetched: only what is on the public internet, within bounds."""

import contextlib
import time
from collections.abc import Callable
from types import SimpleNamespace

import httpcore
import pytest

from storage import outside
from storage.contracts import errors
from storage.gate import Gate
from tests import web
from workers import fetching


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://[::1]/", "http://0x7f.1/", "http://2130706433/", "http://127.1/",
        "http://169.254.169.254/latest/meta-data/", "http://user:secret@8.8.8.8/", "http://8.8.8.8:22/", "ftp://8.8.8.8/x",
        "file:///etc/passwd", "http:///x", "http://[::ffff:127.0.0.1]/",
    ],
)  # fmt: skip
def test_a_url_that_leads_inside_is_refused_without_saying_what_is_there(url: str) -> None:
    fetcher = fetching.Fetcher(limit_s=2)
    with pytest.raises(errors.InputUnreachableError, match="this address may not be fetched"):
        fetcher.fetch(url)
    fetcher.close()


@pytest.mark.parametrize("allowed", ["fd00::5:9000", "[fd00::5]:9000"])
def test_an_address_of_version_6_is_allowed_with_brackets_and_without(allowed: str) -> None:
    gate = Gate([allowed])
    assert not gate.refuses("http://[fd00::5]:9000/hook")
    assert gate.refuses("http://[fd00::6]:9000/hook")
    # As who dials it says it.
    assert gate.allows("fd00::5", 9000)


@pytest.mark.parametrize("name", ["localhost", "nobody.invalid"])
def test_whether_a_name_is_known_inside_is_not_told(name: str) -> None:
    with (
        contextlib.closing(fetching.Fetcher(limit_s=5)) as fetcher,
        pytest.raises(errors.InputUnreachableError) as refused,
    ):
        fetcher.fetch(f"http://{name}/")
    assert refused.value.message == "input_image: its host's name leads to no public address"


def test_what_is_sent_to_a_slow_receiver_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(httpcore.NetworkStream):
        """Takes a twentieth of a second for whatever it is sent."""

        written, now = 0, 0.0

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            assert timeout is not None
            assert timeout <= 0.2
            self.written += len(buffer)
            self.now += 0.05

    slow = Slow()
    monkeypatch.setattr(outside, "time", SimpleNamespace(monotonic=lambda: slow.now))
    with pytest.raises(httpcore.TimeoutException):
        outside.TimedStream(slow, 0.2).write(bytes(2**24))
    assert 0 < slow.written < 2**20


Fetched = Callable[..., bytes]


@pytest.fixture
def fetched() -> Fetched:
    """Fetch from a server of our own that gives this answer, as an allowed one."""
    port = web.free_port()

    def fetch(answer: web.Answer, limit_s: float = 5) -> bytes:
        with (
            contextlib.closing(fetching.Fetcher(limit_s=limit_s, allowed=[f"127.0.0.1:{port}"])) as fetcher,
            web.serving(port, {"/": answer, "/there": web.picture(b"arrived")}),
        ):
            return fetcher.fetch(f"http://127.0.0.1:{port}/")

    return fetch


def test_bytes_arrive(fetched: Fetched) -> None:
    assert fetched(web.picture(b"hello")) == b"hello"


def test_a_url_in_letters_of_its_own_is_fetched() -> None:
    port, asked = web.free_port(), "/%D1%84%D0%BE%D1%82%D0%BE%20a.png?q=%C3%BC&x=1"
    with (
        contextlib.closing(fetching.Fetcher(limit_s=5, allowed=[f"127.0.0.1:{port}"])) as fetcher,
        web.serving(port, {asked: web.picture(b"arrived")}),
    ):
        assert fetcher.fetch(f"http://127.0.0.1:{port}/фото%20a.png?q=ü&x=1") == b"arrived"


def test_a_redirect_is_followed(fetched: Fetched) -> None:
    assert fetched(web.redirect("/there")) == b"arrived"


def test_redirects_without_end_are_given_up(fetched: Fetched) -> None:
    with pytest.raises(errors.InputUnreachableError, match="more than 3 redirects"):
        fetched(web.redirect("/"))


def test_a_redirect_inside_is_refused_and_never_asked(fetched: Fetched) -> None:
    inside = web.free_port()
    with web.serving(inside, {"/secret": web.picture(b"secret")}) as asked:
        with pytest.raises(errors.InputUnreachableError, match="may not be fetched"):
            fetched(web.redirect(f"http://127.0.0.1:{inside}/secret"))
        assert asked == []


def test_an_error_names_the_status_and_nothing_else(fetched: Fetched) -> None:
    with pytest.raises(errors.InputUnreachableError, match="the server answered 404 for url"):
        fetched(web.missing)


def test_an_endless_body_is_cut_off(fetched: Fetched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.pictures.MAX_BYTES", 2**20)
    with pytest.raises(errors.InputUnreachableError, match="more than 1 MiB"):
        fetched(web.endless)


@pytest.mark.parametrize("answer", [web.dripping, web.dripping_headers, web.silent])
def test_a_server_that_never_finishes_is_given_up_in_time(fetched: Fetched, answer: web.Answer) -> None:
    began = time.monotonic()
    with pytest.raises(errors.InputUnreachableError, match="no answer within 1 seconds"):
        fetched(answer, 1)
    assert time.monotonic() - began < 4


def test_a_port_nobody_listens_on_is_unreachable() -> None:
    port = web.free_port()
    fetcher = fetching.Fetcher(limit_s=1, allowed=[f"127.0.0.1:{port}"])
    with pytest.raises(errors.InputUnreachableError, match="could not be fetched"):
        fetcher.fetch(f"http://127.0.0.1:{port}/")
    fetcher.close()
