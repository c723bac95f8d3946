"""What an embedded stack makes of settings that the service's processes cannot share."""

import os
import signal
import subprocess
import sys

import pytest

from infra import stack_options


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"DARKROOM_HOST": "0.0.0.0"}, "http://127.0.0.1:8000"),
        ({"DARKROOM_HOST": "::"}, "http://[::1]:8000"),
        ({"DARKROOM_HOST": "10.0.0.7", "DARKROOM_TLS_CERTIFICATE": "tls.pem"}, "https://10.0.0.7:8000"),
    ],
)
def test_the_api_is_asked_where_it_listens(environment: dict[str, str], url: str) -> None:
    assert stack_options.url(environment, 8000) == url


def test_every_process_has_a_name_and_a_port_for_its_metrics_of_its_own() -> None:
    given = {"DARKROOM_WORKER_NAME": "gpu-box", "DARKROOM_METRICS_PORT": "9464"}
    assert stack_options.of_process("worker-2", 3, given) == {
        "DARKROOM_WORKER_NAME": "gpu-box-worker-2",
        "DARKROOM_METRICS_PORT": "9467",
    }
    assert stack_options.of_process("worker-2", 3, {"DARKROOM_METRICS_PORT": "0"}) == {}


def test_this_machine_is_reached_without_a_proxy() -> None:
    environment = {"http_proxy": "http://proxy:3128", "no_proxy": "internal"}
    stack_options.without_proxy(environment)
    assert environment["no_proxy"] == "internal,127.0.0.1,localhost,::1"
    assert environment["NO_PROXY"] == "127.0.0.1,localhost,::1"


def test_a_worker_that_is_told_to_stop_before_it_serves_ends_at_once() -> None:
    """As the first process of a container it would pass over the signal, and serve."""
    code = (
        "import os, signal, time; from workers import presence; from workers.settings import WorkerSettings\n"
        f"presence.start(WorkerSettings, lambda _: (os.kill(os.getpid(), {int(signal.SIGTERM)}), time.sleep(60)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False, timeout=50)
    assert done.returncode == 0, "by a handler, which the first process needs"
