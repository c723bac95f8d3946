"""The dashboard and the alerts name metrics that there are, and each alert has a runbook; promtool tries them."""

import json
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from prometheus_client import CollectorRegistry

from infra import certificates, dashboard, reference
from storage import metrics
from storage.settings import StoreSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "observability"

NAMED = re.compile(r"\bdarkroom_[a-z_]+\b")
"""Metrics in an expression."""


def _declared() -> set[str]:
    """Every series that is told: of a histogram three."""
    names = set()
    for name, kind in re.findall(r"^\| `(darkroom_[a-z_]+)` \| (\w+)", reference.metrics(), re.MULTILINE):
        names |= {f"{name}{part}" for part in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}
    return names


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_metric_of_the_dashboard_and_the_alerts_is_told() -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    expressions += [rule["expr"] for rule in _rules()]
    named = {name for expression in expressions for name in NAMED.findall(expression)}
    assert len(named) > 25
    assert named <= _declared()


def test_every_metric_is_on_the_dashboard() -> None:
    text = (FOLDER / "dashboard.json").read_text()
    assert {name for name in re.findall(r"`(darkroom_[a-z_]+)`", reference.metrics()) if name not in text} == set()


def test_the_dashboard_is_as_its_questions_are() -> None:
    assert json.loads((FOLDER / "dashboard.json").read_text()) == dashboard.dashboard(), "run python -m infra.dashboard"


def test_every_alert_has_a_runbook_and_a_test() -> None:
    page = (ROOT / "docs" / "operating.md").read_text()
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-")
        for one in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    tested = (FOLDER / "rules_test.yml").read_text()
    for rule in _rules():
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (file, anchor in anchors) == ("docs/operating.md", True), rule["alert"]
        assert tested.count(rule["alert"]) >= 2, f"{rule['alert']}: when it fires, and when not"


def test_the_end_of_a_certificate_is_that_of_the_first_in_its_chain_to_end(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    file = tmp_path / certificates.CERTIFICATE
    watched = metrics.Certificates({"signing": file, "gone": tmp_path / "gone", "none": None})

    def ends() -> dict[str, float]:
        (family,) = watched.collect()
        return {one.labels["certificate"]: one.value for one in family.samples}

    chain = x509.load_pem_x509_certificates(file.read_bytes())
    assert ends() == {"signing": min(one.not_valid_after_utc for one in chain).timestamp(), "gone": 0}
    file.unlink()
    certificates.make(tmp_path)
    assert ends()["signing"] == min(one.not_valid_after_utc for one in chain).timestamp(), (
        "what was renewed is not used yet"
    )
    file.write_bytes(b"no certificate")
    assert ends()["signing"] == 0


def test_a_taken_port_of_the_metrics_is_told_by_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = StoreSettings(metrics_port=port, metrics_host="127.0.0.1")
        told = f"DARKROOM_METRICS_PORT: 127.0.0.1:{port} cannot be listened on: Address already in use"
        with pytest.raises(ValueError, match=re.escape(told)), metrics.served(CollectorRegistry(), settings):
            pass


@pytest.mark.parametrize(
    "command", ["check rules rules.yml", "test rules rules_test.yml", "check config prometheus.yml"]
)
def test_promtool_finds_nothing_wrong(command: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    done = subprocess.run([promtool, *command.split()], cwd=FOLDER, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
