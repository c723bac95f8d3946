"""What the dialects' tests share: their tenants, a second API process that speaks https, pictures, and who takes webhooks."""

import contextlib
import io
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import trustme
from PIL import Image

from infra import embedded
from infra.children import Child
from tests import web
from tests.conftest import TENANTS, Tenant, encoded, eventually

PROMPT = "make it blue"


def tenant(stack: embedded.Stack, name: str) -> Tenant:
    return Tenant(stack.url, name, TENANTS[name])


@pytest.fixture
def ruth(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "ruth")


@pytest.fixture
def nina(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "nina")


@pytest.fixture
def olga(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "olga")


@pytest.fixture
def rita(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "rita")


@pytest.fixture
def faye(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "faye")


@pytest.fixture
def bella(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "bella")


@pytest.fixture
def iris(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "iris")


@pytest.fixture(scope="session")
def secure(stack: embedded.Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Another API process on the same stores that speaks https, for clients that know nothing else; its address and authority."""
    folder = tmp_path_factory.mktemp("tls")
    issuer = trustme.CA()
    served = issuer.issue_cert("127.0.0.1")
    served.private_key_pem.write_to_path(folder / "server.key")
    served.cert_chain_pems[0].write_to_path(folder / "server.pem")
    authority = folder / "authority.pem"
    issuer.cert_pem.write_to_path(authority)
    port = web.free_port()
    first = stack.children["api"]
    environment = {
        **first.environment,
        "DARKROOM_PORT": str(port),
        "DARKROOM_TLS_CERTIFICATE": str(folder / "server.pem"),
        "DARKROOM_TLS_KEY": str(folder / "server.key"),
    }
    child = Child("secure-api", [sys.executable, "-m", "api"], environment, first.log_file.with_name("secure-api.log"))
    url = f"https://127.0.0.1:{port}"

    def ready() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{url}/health/ready", timeout=2, verify=str(authority)).status_code == 200
        return False

    eventually(ready)
    yield url, authority
    child.stop()


@pytest.fixture(scope="session")
def trusting(secure: tuple[str, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(secure[1]))


def pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.convert("RGB").tobytes()


def small_picture() -> bytes:
    return encoded(Image.linear_gradient("L").resize((96, 64)).convert("RGB"), "PNG")
