"""The Helm chart: what it renders is valid Kubernetes, safe by default, and agrees with what the processes read."""

import functools
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import helm_python.chart
import helm_python.errors
import kubernetes_validate
import pytest
import yaml

from api.settings import ApiSettings
from infra import reference
from storage import queues
from storage.contracts.catalog_files import merge
from tests import npm
from workers.settings import GpuSettings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "infra" / "chart"
KUBERNETES = ("1.27", "1.33", "1.37")
OTHERS = {"ScaledObject", "PodMonitor", "PrometheusRule"}
"""Kinds of KEDA's and Prometheus' operators, which Kubernetes' own schemas do not know."""
OPERATORS = Path(__file__).parent / "operators"
"""What knows them, from npm."""

BASE: dict[str, Any] = {"existingSecret": "darkroom"}
H100: dict[str, Any] = {"gpuType": "h100", "preload": ["flux-kontext-dev"], "resources": {"requests": {"cpu": "4"}}}
SCALED = {**H100, "autoscaling": {"enabled": True, "min": 0, "max": 4, "queuedPerWorker": 3}}

VALUES: dict[str, dict[str, Any]] = {
    "least": {},
    "one worker": {"workers": {"h100": H100}},
    "several GPU types and regions": {
        "workers": {"h100": H100, "l40s-west": {"gpuType": "l40s", "region": "eu-west", "replicas": 3, "graceS": 30}}
    },
    "text encoders apart": {
        "workers": {"h100": H100, "text": {"gpuType": "l40s", "role": "text-encoder", "models": ["flux-2-dev"]}}
    },
    "scaled to zero": {"workers": {"h100": SCALED}, "metrics": {"prometheusUrl": "http://prometheus:9090"}},
    "stores of one's own": {
        "valkey": {"enabled": False},
        "settings": {"DARKROOM_WAIT_REPLICAS": "1"},
        "s3": {"endpointUrl": "https://s3.internal", "publicEndpointUrl": "https://s3.example", "bucket": "pictures"},
    },
    "a catalog": {"catalog": '[models.our-style]\nextends = "flux-kontext-dev"\n', "workers": {"h100": H100}},
    "an ingress": {
        "api": {"ingress": {"enabled": True, "className": "nginx", "host": "a.example", "tlsSecret": "t", "annotations": {}}}
    },
    "operators": {"metrics": {"podMonitor": {"enabled": True, "labels": {"release": "x"}}, "rules": {"enabled": True}}},
    "no metrics, no policies": {
        "metrics": {"enabled": False}, "networkPolicy": {"enabled": False}, "workers": {"h100": H100}, "api": {"replicas": 1}
    },
    "an own registry and volumes": {
        "image": {"registry": "registry.example/darkroom/", "tag": "1.2.3", "pullSecrets": [{"name": "pull"}]},
        "weights": {"existingClaim": "weights"},
        "workers": {
            "h200": {
                "gpuType": "h200", "compileCache": {"existingClaim": "cache"}, "nodeSelector": {"a": "b"},
                "tolerations": [{"operator": "Exists"}],
            }
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def chart() -> helm_python.chart.Chart:
    return helm_python.chart.Chart.load(CHART)


def rendered(chart: helm_python.chart.Chart, values: dict[str, Any]) -> list[dict[str, Any]]:
    files = chart.render({**BASE, **values}, name="edits", namespace="pictures")
    documents = [yaml.load_all(text, yaml.CSafeLoader) for name, text in files.items() if name.endswith(".yaml")]
    return [one for one in itertools.chain.from_iterable(documents) if one]


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod specs by the name of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in manifests
        if one["kind"] in ("Deployment", "StatefulSet")
    }


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}


@functools.cache
def _validate(manifest: str) -> None:
    """Most manifests are the same for all values."""
    for version in KUBERNETES:
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)


@pytest.mark.parametrize("name", VALUES)
def test_what_it_renders_is_valid(chart: helm_python.chart.Chart, name: str) -> None:
    report = helm_python.chart.lint(CHART, {**BASE, **VALUES[name]}, strict=True)
    assert [one for one in report["messages"] if one["severity"] > 1] == []
    manifests = rendered(chart, VALUES[name])
    assert len(manifests) > 5
    for one in manifests:
        if one["kind"] not in OTHERS:
            _validate(json.dumps(one))
    named = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(set(named)) == len(named)


def test_what_operators_read_is_valid_by_their_schemas(chart: helm_python.chart.Chart) -> None:
    found = [one for values in VALUES.values() for one in rendered(chart, values) if one["kind"] in OTHERS]
    assert {one["kind"] for one in found} == OTHERS
    npm.install(OPERATORS)
    assert json.loads(npm.run(OPERATORS, "validate.mjs", stdin=json.dumps(found))) == []


UNPRIVILEGED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_unprivileged_and_every_selector_finds_its_pods(chart: helm_python.chart.Chart, name: str) -> None:
    manifests = rendered(chart, VALUES[name])
    for pod in pods(manifests).values():
        assert pod["securityContext"]["runAsNonRoot"]
        # Else another's service of the name "darkroom" would set DARKROOM_PORT.
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert all(one["securityContext"] == UNPRIVILEGED for one in pod["containers"])
        volumes = {one["name"] for one in pod["volumes"]} | {"data"}
        assert {one["name"] for container in pod["containers"] for one in container["volumeMounts"]} <= volumes
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in manifests if "template" in one.get("spec", {})]
    for one in manifests:
        selector = one.get("spec", {}).get("selector") or one.get("spec", {}).get("podSelector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= known.items() for known in labels), one["metadata"]["name"]


@pytest.mark.parametrize("name", VALUES)
def test_processes_are_given_settings_that_they_read(chart: helm_python.chart.Chart, name: str) -> None:
    for owner, pod in pods(rendered(chart, VALUES[name])).items():
        if owner.endswith("-valkey"):
            continue
        given = environment(pod)
        kind = ApiSettings if owner.endswith("-api") else GpuSettings
        aliases = {str(field.validation_alias or f"DARKROOM_{key.upper()}") for key, field in kind.model_fields.items()}
        assert set(given) <= aliases, owner
        # No secret stands in a manifest.
        assert {key: value for key, value in given.items() if re.search("SECRET|KEY|PASSWORD", key) and value} == {}


def test_a_worker_has_one_gpu_and_time_for_what_it_holds(chart: helm_python.chart.Chart) -> None:
    found = pods(rendered(chart, VALUES["several GPU types and regions"]))
    fast, west = found["edits-worker-h100"], found["edits-worker-l40s-west"]
    for pod, grace in ((fast, 600), (west, 30)):
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert pod["terminationGracePeriodSeconds"] == grace + 60
        assert environment(pod)["DARKROOM_GRACE_S"] == str(grace)
    settings = {**environment(west), "HF_HOME": ""}
    assert (settings["DARKROOM_GPU_TYPE"], settings["DARKROOM_REGION"]) == ("l40s", "eu-west")
    assert environment(fast)["DARKROOM_PRELOAD"] == '["flux-kontext-dev"]'


def test_no_grace_and_no_cooldown_are_none(chart: helm_python.chart.Chart) -> None:
    scaled = {**SCALED, "graceS": 0, "autoscaling": {**SCALED["autoscaling"], "cooldownS": 0}}
    values = {"workers": {"h100": scaled}, "metrics": {"prometheusUrl": "http://prometheus:9090"}}
    manifests = rendered(chart, values)
    assert environment(pods(manifests)["edits-worker-h100"])["DARKROOM_GRACE_S"] == "0"
    (scaler,) = [one for one in manifests if one["kind"] == "ScaledObject"]
    assert scaler["spec"]["cooldownPeriod"] == 0


@pytest.mark.parametrize(
    ("ingress", "settings", "url"),
    [
        ({"host": "a.example", "tlsSecret": "t"}, {}, "https://a.example"),
        ({"host": "a.example"}, {}, "http://a.example"),
        ({"host": "a.example"}, {"DARKROOM_PUBLIC_URL": "https://b.example"}, "https://b.example"),
        ({"enabled": False}, {}, None),
    ],
)
def test_the_service_says_that_it_is_where_its_ingress_is(
    chart: helm_python.chart.Chart, ingress: dict[str, Any], settings: dict[str, str], url: str | None
) -> None:
    values = {"api": {"ingress": {"enabled": True, **ingress}}, "settings": settings}
    assert environment(pods(rendered(chart, values))["edits-api"]).get("DARKROOM_PUBLIC_URL") == url


def test_scaling_asks_for_metrics_that_there_are_of_queues_that_the_worker_serves(
    chart: helm_python.chart.Chart,
) -> None:
    manifests = rendered(chart, VALUES["scaled to zero"])
    (scaled,) = [one for one in manifests if one["kind"] == "ScaledObject"]
    target = scaled["spec"]["scaleTargetRef"]["name"]
    (deployment,) = [one for one in manifests if one["kind"] == "Deployment" and one["metadata"]["name"] == target]
    assert "replicas" not in deployment["spec"], "the scaler decides"
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (0, 4)
    asked = [one["metadata"]["query"] for one in scaled["spec"]["triggers"]]
    named = {name for query in asked for name in re.findall(r"darkroom_[a-z_]+", query)}
    assert named <= set(re.findall(r"`(darkroom_[a-z_]+)`", reference.metrics()))
    (pattern,) = set(re.findall(r'queue=~"([^"]+)"', " ".join(asked)))
    served = queues.queues_of_worker(["flux-kontext-dev", "flux-2-klein-4b"], "h100", "local")
    other = queues.queues_of_worker(["flux-kontext-dev"], "l40s", "eu-west")
    assert [one for one in (*served, *other) if re.fullmatch(pattern, one)] == [
        *served, *(one for one in other if one.endswith(".any"))
    ]  # fmt: skip


def test_a_pool_is_scaled_for_its_own_models_alone_and_where_something_is_known(chart: helm_python.chart.Chart) -> None:
    pool = {**SCALED, "models": ["flux-kontext-dev", "our.style"]}
    (scaled,) = [one for one in rendered(chart, {"workers": {"h100": pool}}) if one["kind"] == "ScaledObject"]
    triggers = [one["metadata"] for one in scaled["spec"]["triggers"]]
    (pattern,) = set(re.findall(r'queue=~"([^"]+)"', " ".join(one["query"] for one in triggers)))
    own = queues.queues_of_worker(["flux-kontext-dev", "our.style"], "h100", "local")
    others = [*queues.queues_of_worker(["flux-2-dev"], "h100", "local"), "edits.ourxstyle.any"]
    assert [one for one in (*own, *others) if re.fullmatch(pattern, one)] == list(own)
    for one in triggers:
        assert one["query"].endswith("and on () (max(darkroom_store_up) == 1)")
        assert one["ignoreNullValues"] == "false", "or no answer would be taken for nought"


@pytest.mark.parametrize(
    ("resources", "limit"),
    [
        ({"requests": {"memory": "64Gi"}}, "64Gi"),
        ({"requests": {"memory": "64Gi"}, "limits": {"memory": "96Gi"}}, "96Gi"),
        ({}, None),
    ],
)
def test_a_worker_is_limited_to_the_memory_it_asks_for_and_ready_once_it_takes_work(
    chart: helm_python.chart.Chart, resources: dict[str, Any], limit: str | None
) -> None:
    found = pods(rendered(chart, {"workers": {"h100": {**H100, "resources": resources}}}))
    worker = found["edits-worker-h100"]["containers"][0]
    assert worker["resources"]["limits"].get("memory") == limit
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    for name in ("edits-worker-h100", "edits-housekeeping"):
        (container,) = found[name]["containers"]
        assert container["readinessProbe"]["exec"]["command"] == ["python", "-m", "workers.health"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"existingSecret": ""}, "existingSecret"),
        ({"workers": {"h100": {}}}, "gpuType"),
        ({"settings": {"PATH": "x"}}, "PATH"),
        ({"workers": {"h100": SCALED}, "metrics": {"enabled": False}}, "needs metrics.enabled"),
        ({"api": {"ingress": {"enabled": True}}}, "host is needed"),
        ({"worker": {}}, "worker"),
        (
            {"workers": {"h100": {**SCALED, "autoscaling": {**SCALED["autoscaling"], "min": 5}}}},
            "min may be at most max",
        ),
        ({"settings": {"DARKROOM_METRICS_PORT": "1"}}, "DARKROOM_METRICS_PORT is metrics.port"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    chart: helm_python.chart.Chart, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(helm_python.errors.HelmError, match=told):
        rendered(chart, values)


def test_gpu_types_of_the_examples_are_the_catalogs() -> None:
    known = merge([tomllib.loads((ROOT / "storage" / "catalog.toml").read_text())]).gpu_types
    named = {worker["gpuType"] for values in VALUES.values() for worker in values.get("workers", {}).values()}
    assert named <= set(known)
