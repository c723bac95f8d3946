"""A misspelt setting is told of; names that others use are passed over."""

import logging
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.settings import ApiSettings
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
        ({"lease_s": 5, "beat_s": 3}, "DARKROOM_BEAT_S: at most half of DARKROOM_LEASE_S, 2.5; got 3"),
        *(
            (
                {"fetch_allowed": [pair]},
                f"DARKROOM_FETCH_ALLOWED: each is a host:port such as 10.0.0.5:80; got '{pair}'",
            )
            for pair in ("127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:9", ":80", "host:")
        ),
        ({"lease_s": float("inf")}, "DARKROOM_LEASE_S: input should be a finite number"),
        (
            {"REDIS_URL": "http://x"},
            "REDIS_URL: it must begin with redis://, rediss:// or redis+sentinel://; got http://",
        ),
        ({"traces_endpoint": "nope"}, "DARKROOM_TRACES_ENDPOINT: must be an http(s) URL; got 'nope'"),
    ],
)
def test_what_does_not_fit_is_told_by_the_variables_name(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        WorkerSettings(**settings)  # type: ignore[arg-type]
    assert told in reason(refused.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tls_certificate": "/nowhere"}, "DARKROOM_TLS_CERTIFICATE: /nowhere is no file that can be read"),
        ({"queue_ttl_s": float("inf")}, "DARKROOM_QUEUE_TTL_S: input should be a finite number"),
        ({"budgets": {"a": float("inf")}}, "DARKROOM_BUDGETS.a: input should be a finite number"),
        ({"public_url": "nope/"}, "DARKROOM_PUBLIC_URL: must be an http(s) URL; got 'nope/'"),
        *(
            ({"cors_origins": [origin]}, f"a scheme and a host such as https://shop.example, no path; got '{origin}'")
            for origin in ("localhost:9", "https://shop.example/", "https://")
        ),
    ],
)
def test_what_does_not_fit_the_api_is_told_too(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ApiSettings(**settings)  # type: ignore[arg-type]
    assert reason(refused.value).endswith(told)


def test_what_fits_is_taken() -> None:
    origins = ("*", "https://shop.example", "http://127.0.0.1:8080", "capacitor://localhost")
    settings = ApiSettings(
        cors_origins=origins, public_url="https://edit.example/api", fetch_allowed=("[::1]:80", "minio:9000")
    )
    assert settings.cors_origins == origins
    assert settings.read_catalog().has(settings.default_model)


def test_a_default_model_is_one_of_the_catalogs() -> None:
    with pytest.raises(ValueError, match=r"DARKROOM_DEFAULT_MODEL: the catalog has no 'nope', but .*flux-kontext-dev"):
        ApiSettings(default_model="nope").read_catalog()


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
