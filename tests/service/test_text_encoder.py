"""A GPU worker without text encoders and a worker that has nothing else: edits are made, whatever becomes of the latter."""

import contextlib
import io
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import redis
import requests
from PIL import Image

from infra import embedded
from storage import connections, keys
from storage.objects import Objects
from tests.conftest import TENANTS, Tenant, eventually, running_stack, stack_environment

ELSEWHERE = "text encoder elsewhere"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Stack]:
    folder = tmp_path_factory.mktemp("apart")
    again = folder / "again.toml"
    again.write_text('[models.kontext-again]\nextends = "flux-kontext-dev"\n')
    with running_stack(
        folder,
        DARKROOM_CATALOG=f"{stack_environment(folder)['DARKROOM_CATALOG']}:{again}",
        DARKROOM_TEXT_ENCODING="elsewhere",
        DARKROOM_TEXT_ENCODERS="1",
        DARKROOM_ENCODE_LIMIT_S="40",
        DARKROOM_MODELS='["flux-kontext-dev", "flux-2-klein-4b", "kontext-again", "quick"]',
    ) as one:
        yield one


@pytest.fixture
def alice(stack: embedded.Stack) -> Tenant:
    return Tenant(stack.url, "alice", TENANTS["alice"])


@pytest.fixture
def store(stack: embedded.Stack) -> Iterator[redis.Redis]:
    with contextlib.closing(connections.connect(stack.store)) as one:
        yield one


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _asked(store: redis.Redis, model: str = "flux-kontext-dev") -> int:
    return int(store.zcard(f"{keys.ENCODINGS}local:{model}"))


def _plan(found: dict[str, object]) -> str:
    assert found["status"] == "succeeded", found
    receipt = found["receipt"]
    assert isinstance(receipt, dict)
    return str(receipt["placement"])


@pytest.mark.parametrize("model", ["flux-kontext-dev", "flux-2-klein-4b"])
def test_an_edit_is_made_with_prompts_encoded_elsewhere(
    stack: embedded.Stack, alice: Tenant, store: redis.Redis, photograph: str, model: str
) -> None:
    id_ = alice.enqueue(photograph, model=model, prompt="turn the teapot periwinkle")
    assert _plan(alice.finished(id_)).endswith(ELSEWHERE)
    # What was fetched is deleted. Asked for twice, since the first time took long, it may be stored twice.
    assert store.zscore(keys.EXPIRING, f"encodings/alice/{id_}/1/"), "nothing stays for ever"
    assert all(int(store.ttl(key)) > 0 for key in store.scan_iter(match=f"{keys.ENCODED}{id_}*"))
    eventually(lambda: not _asked(store, model))
    assert "periwinkle" not in stack.children["text-encoder-1"].log_file.read_text()


def test_the_prompt_is_followed(alice: Tenant, photograph: str) -> None:
    greys = []
    for prompt in ("make it black and white", "make the colours more vivid"):
        found = alice.finished(alice.enqueue(photograph, model="flux-kontext-dev", prompt=prompt))
        assert _plan(found).endswith(ELSEWHERE)
        greys.append(_colourfulness(alice, found))
    assert greys[0] < greys[1] / 2


def _colourfulness(alice: Tenant, found: dict[str, object]) -> float:
    data = requests.get(str(found["result_url"]), timeout=30).content
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
    return float((pixels.max(2) - pixels.min(2)).mean())


def test_models_whose_text_encoder_is_not_to_be_had_apart_are_served_as_ever(alice: Tenant, tiny: str) -> None:
    assert ELSEWHERE not in _plan(alice.finished(alice.enqueue(tiny, model="quick")))


def test_a_text_encoder_that_dies_is_replaced_and_nothing_is_lost(
    stack: embedded.Stack, alice: Tenant, store: redis.Redis, photograph: str
) -> None:
    encoder = stack.children["text-encoder-1"]
    with _stopped(encoder.pid):
        id_ = alice.enqueue(photograph, model="flux-kontext-dev", prompt="a prompt that nobody has read yet")
        eventually(lambda: _asked(store) == 1)
        os.kill(encoder.pid, signal.SIGKILL)
        eventually(lambda: not encoder.alive)
    encoder.restart_if_dead()
    found = alice.finished(id_)
    assert _plan(found).endswith(ELSEWHERE)
    assert found["attempts"] == 1


def test_what_is_cancelled_meanwhile_is_not_encoded(
    stack: embedded.Stack, alice: Tenant, store: redis.Redis, photograph: str
) -> None:
    encoder = stack.children["text-encoder-1"]
    with _stopped(encoder.pid):
        id_ = alice.enqueue(photograph, model="flux-kontext-dev", prompt="a prompt that is taken back")
        eventually(lambda: _asked(store) == 1)
        assert alice.delete(f"/api/ai/queue/{id_}").status_code in (200, 202, 204)
    eventually(lambda: _asked(store) == 0)
    assert not Objects(stack.store).entries(f"encodings/alice/{id_}/")


@pytest.fixture
def nobody_encodes(stack: embedded.Stack) -> Iterator[None]:
    """While the test runs."""
    encoder = stack.children["text-encoder-1"]
    encoder.stop()
    yield
    encoder.restart_if_dead()


@pytest.mark.usefixtures("nobody_encodes")
def test_without_one_the_model_is_loaded_with_its_text_encoder(alice: Tenant, photograph: str) -> None:
    # Of a model of its own: it stays so for ten minutes.
    found = alice.finished(alice.enqueue(photograph, model="kontext-again", prompt="a prompt that nobody will read"))
    assert ELSEWHERE not in _plan(found)
    assert found["attempts"] == 1, "it cost time, and no attempt"
