"""A misspelt setting is told of; names that others use are passed over."""

import logging
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from storage import setting_names
from storage.settings import StoreSettings, reason
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]


def test_a_misspelt_setting_is_told_of_with_the_one_that_was_meant(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        setting_names.warn({"DARKROOM_LEASES_S": "30", "DARKROOM_LEASE_S": "30", "DARKROOM_ZEBRA": "1", "PATH": "/bin"})
    assert caplog.messages == [
        "DARKROOM_LEASES_S is not a setting (did you mean DARKROOM_LEASE_S?), and has no effect",
        "DARKROOM_ZEBRA is not a setting, and has no effect",
    ]


def test_what_kubernetes_sets_for_a_service_is_passed_over() -> None:
    service = ("DARKROOM_API_SERVICE_HOST", "DARKROOM_API_SERVICE_PORT_HTTP", "DARKROOM_API_PORT_80_TCP_ADDR")
    assert setting_names.unknown(service) == []
    assert len(setting_names.unknown(service[1:])) == 2
    # One that is called "darkroom" hides no other.
    assert len(setting_names.unknown(("DARKROOM_SERVICE_HOST", "DARKROOM_PORT_80_TCP", "DARKROOM_LEASES_S"))) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lease_s": -1}, "DARKROOM_LEASE_S: input should be greater than 0"),
        ({"S3_BUCKET": "x"}, "S3_BUCKET: string should have at least 3 characters"),
        ({"log_level": "LOUD", "sweep_s": 0}, "DARKROOM_SWEEP_S: input should be greater than 0"),
    ],
)
def test_what_does_not_fit_is_told_by_the_variables_name(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        WorkerSettings(**settings)  # type: ignore[arg-type]
    assert told in reason(refused.value).split("; ")


def test_a_secret_that_does_not_fit_is_not_told() -> None:
    with pytest.raises(ValidationError) as refused:
        StoreSettings(REDIS_URL={"secret": "swordfish"})  # type: ignore[arg-type]
    assert reason(refused.value).startswith("REDIS_URL: ")
    assert "swordfish" not in reason(refused.value)


def test_every_setting_that_a_page_or_a_manifest_names_is_known() -> None:
    files = [ROOT / "README.md", ROOT / ".env.example", ROOT / "docker-compose.yml", *(ROOT / "docs").glob("*.md")]
    files += [file for folder in ("chart", "docker") for file in (ROOT / "infra" / folder).rglob("*") if file.is_file()]
    named = {name for file in files for name in re.findall(r"DARKROOM_[A-Z0-9_]*[A-Z0-9]", file.read_text())}
    assert len(named) > 50
    assert setting_names.unknown(named) == []
