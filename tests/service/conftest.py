"""An operator of the service's, and keys that are made for a test."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import embedded
from tests.conftest import Tenant

PUBLIC = {
    "GET /.well-known/jwks.json", "GET /health/live", "GET /health/ready", "GET /v1/health/live", "GET /v1/health/ready",
    "GET /v1/license", "GET /v1/manifest", "GET /v1/metadata", "GET /v1/stored/{key}",
    "GET /v1/thumbnails/{key}", "HEAD /v1/stored/{key}", "PUT /v1/uploads/{key}",
}  # fmt: skip
"""Routes that tell nothing of a tenant's, but for links that are signed themselves."""


def darkroom_admin(stack: embedded.Stack, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; `changes` are of its environment."""
    environment = {**os.environ, "DARKROOM_DATA_DIR": str(stack.options.data_dir), **changes}
    command = [str(Path(sys.executable).parent / "darkroom-admin"), *arguments]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


@pytest.fixture(scope="session")
def operator(stack: embedded.Stack) -> Tenant:
    """A caller whose key has the scope `admin`, which the command line makes."""
    made = darkroom_admin(stack, "keys", "create", "operators", "--scopes", "admin")
    assert made.returncode == 0, made.stderr
    return Tenant(stack.url, "operators", made.stdout.strip())


Make = Callable[..., Tenant]


@pytest.fixture
def make(operator: Tenant) -> Iterator[Make]:
    """Make a key, and revoke it after the test."""
    made: list[str] = []

    def one(tenant: str = "zoe", **rights: object) -> Tenant:
        answer = operator.post("/api/admin/keys", {"tenant": tenant, **rights})
        assert answer.status_code == 201, answer.text
        made.append(answer.json()["id"])
        return Tenant(operator.url, tenant, answer.json()["key"])

    yield one
    for id_ in made:
        operator.delete(f"/api/admin/keys/{id_}")
