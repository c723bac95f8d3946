"""Who may sign in is settled before the API starts."""

import pytest
from pydantic import ValidationError

from api.settings import ApiSettings


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"api_key": ""}, "at least 16 characters"),
        ({"api_keys": {"my-team": ""}}, "at least 16 characters"),
        ({"api_keys": {"../alice": "a" * 16}}, "a tenant's name is"),
        ({"api_keys": {"alice/bob": "a" * 16}}, "a tenant's name is"),
        ({"budgets": {"../alice": 5}}, "a tenant's name is"),
        ({"retention_days": {"../alice": 5}}, "a tenant's name is"),
        ({"retention_days": {"alice": 8}}, "less than or equal to 7"),
        ({"api_keys": {"alice": "a" * 16, "bob": "a" * 16}}, "two tenants have the same key"),
        ({"api_key": "a" * 16, "api_keys": {"alice": "a" * 16}}, "two tenants have the same key"),
    ],
)
def test_keys_that_let_in_nobody_or_anybody_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], complaint: str
) -> None:
    monkeypatch.delenv("DARKROOM_API_KEY", raising=False)
    with pytest.raises(ValidationError, match=complaint):
        ApiSettings(**keys)  # type: ignore[arg-type]


def test_each_key_names_its_tenant() -> None:
    settings = ApiSettings(api_key="d" * 16, api_keys={"alice": "a" * 16})  # type: ignore[arg-type]
    assert settings.tenants_by_key() == {"d" * 16: "default", "a" * 16: "alice"}
