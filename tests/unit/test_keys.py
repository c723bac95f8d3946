"""API keys as text: known by their prefix, told from a slip by their checksum, and looked up no oftener than needed."""

import asyncio
import re
from typing import Any

import pytest

from api.service import keys
from storage.contracts import access, errors
from storage.ledger import call

NOW_MS = 1_800_000_000_000


def _issued(**asked: object) -> tuple[access.ApiKey, str]:
    return access.issued(access.KeyRequest.model_validate({"tenant": "zoe", **asked}), now_ms=NOW_MS)


def test_a_key_has_a_prefix_an_id_and_a_checksum_and_no_two_are_alike() -> None:
    issued = [_issued() for _ in range(1000)]
    assert len({token for _, token in issued}) == 1000
    for key, token in issued:
        assert re.fullmatch(r"dk_live_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}", token)
        assert access.id_of(token) == key.id
        assert key.digest == access.digest(token)
        assert token.rpartition("_")[2] not in key.model_dump_json()


def test_a_slip_in_a_key_is_noticed_without_asking_a_store() -> None:
    _, token = _issued()
    at = len("dk_live_")
    for place in range(at, len(token)):
        other = "0" if token[place] != "0" else "1"
        if token[place] != "_":
            assert access.id_of(token[:place] + other + token[place + 1 :]) is None
    assert access.id_of(token + "0") is None


def test_a_rotated_key_lives_as_long_from_now_as_the_first_did() -> None:
    key, _ = _issued(expires_in_s=60, scopes=["read"])
    ending = key.model_copy(update={"expires_ms": NOW_MS + 1})
    again, _ = access.rotated(ending, now_ms=NOW_MS + 5000)
    assert (again.expires_ms, again.rights.scopes) == (NOW_MS + 65_000, ("read",))
    assert again.id != key.id
    assert access.rotated(_issued()[0], now_ms=NOW_MS)[0].expires_ms is None


class Ledger:
    """Knows one key, and counts how often it is asked."""

    def __init__(self, key: access.ApiKey | None) -> None:
        self.key, self.asked = key, 0

    async def run(self, call: call.Call[Any]) -> Any:
        self.asked += 1
        return self.key


def _caller(known: keys.Keys, token: str) -> access.Caller:
    return asyncio.run(known.caller_of(token))


def test_a_key_is_read_once_in_a_while_and_a_malformed_one_never() -> None:
    key, token = _issued()
    ledger = Ledger(key)
    known = keys.Keys({}, ledger, naming=b"n")
    assert {_caller(known, token).tenant for _ in range(100)} == {"zoe"}
    assert ledger.asked == 1
    for wrong in ("", "x" * 100, token[:-1], token + "\n"):
        with pytest.raises(errors.UnauthenticatedError):
            _caller(known, wrong)
    assert ledger.asked == 1


def test_an_id_with_another_secret_is_nobody() -> None:
    key, _ = _issued()
    known = keys.Keys({}, Ledger(key.model_copy(update={"digest": "0" * 64})), naming=b"n")
    for token in (_issued()[1], _issued()[1]):
        with pytest.raises(errors.UnauthenticatedError):
            _caller(known, token)


def test_a_key_that_has_expired_is_refused_even_while_it_is_remembered() -> None:
    key, token = _issued()
    known = keys.Keys({}, Ledger(key.model_copy(update={"expires_ms": 1})), naming=b"n")
    with pytest.raises(errors.UnauthenticatedError):
        _caller(known, token)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REMEMBERED", 10)
    known = keys.Keys({}, Ledger(None), naming=b"n")
    for _ in range(50):
        with pytest.raises(errors.UnauthenticatedError):
            _caller(known, _issued()[1])
    assert len(known._found) == 10


def test_a_key_of_the_settings_may_start_models_and_make_no_keys() -> None:
    known = keys.Keys({"k" * 16: "alice"}, Ledger(None), naming=b"n", unfiltered=["alice"])
    caller = _caller(known, "k" * 16)
    assert (caller.tenant, caller.rights.unfiltered) == ("alice", True)
    assert access.digest("k" * 16)[:8] not in caller.name, "or a weak key could be guessed from a token"
    caller.check("models")
    with pytest.raises(errors.ForbiddenError, match="lacks the scope admin"):
        caller.check("admin")


def test_a_key_of_the_settings_is_known_by_its_name_after_a_restart() -> None:
    def restarted(*secrets: str, naming: bytes | None) -> keys.Keys:
        return keys.Keys(dict.fromkeys(secrets, "alice") | {"b" * 16: "bob"}, Ledger(None), naming=naming)

    def is_known(known: keys.Keys, name: str, tenant: str) -> bool:
        try:
            return asyncio.run(known.named(name, tenant)).tenant == tenant
        except errors.UnauthenticatedError:
            return False

    for naming in (b"n", None):
        name = _caller(restarted("k" * 16, naming=naming), "k" * 16).name
        assert is_known(restarted("k" * 16, naming=naming), name, "alice")
        assert not is_known(restarted(naming=naming), name, "alice")
        assert not is_known(restarted("k" * 16, naming=naming), name, "bob")
    assert not is_known(
        restarted("other" * 4, naming=b"n"), _caller(restarted("k" * 16, naming=b"n"), "k" * 16).name, "alice"
    )
