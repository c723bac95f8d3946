"""The clients that Node's users have, from npm, unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import npm
from tests.conftest import TENANTS, data_uri
from tests.dialects.conftest import small_picture

FOLDER = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def packages() -> None:
    npm.install(FOLDER)


def run(base: str, script: str) -> dict[str, Any]:
    environment = {"BASE": base, "KEY": TENANTS["nadia"], "PICTURE": data_uri(small_picture())}
    return dict(json.loads(npm.run(FOLDER, script, environment=environment)))


@pytest.mark.usefixtures("packages")
class TestFromNode:
    """One script for each client."""

    def test_runpod(self, ruth: Any) -> None:
        seen = run(ruth.url, "runpod.mjs")
        assert seen["sync"]["status"] == "COMPLETED"
        assert seen["job"]["output"]["seed"] == 7
        assert [part["output"]["seed"] for part in seen["streamed"]] == [7]
        assert seen["cancelled"]["status"] == "CANCELLED"
        assert seen["purged"] == {"removed": 0, "status": "completed"}
        assert seen["health"]["workers"]["ready"] >= 0

    def test_replicate(self, rita: Any) -> None:
        seen = run(rita.url, "replicate.mjs")
        assert seen["size"] > 100
        assert seen["cancelled"]["status"] == "canceled"
        assert seen["listed"] >= 2

    def test_openai(self, olga: Any) -> None:
        seen = run(olga.url, "openai.mjs")
        assert requests.get(seen["edit"], timeout=10).status_code == 200
        assert (seen["size"], seen["several"]) == ("96x64", 2)
        assert seen["types"] == ["image_edit.partial_image", "image_edit.completed"]
        assert seen["refused"] == {"status": 400, "param": "model"}

    def test_fal(self, faye: Any) -> None:
        seen = run(faye.url, "fal.mjs")
        assert seen["data"]["seed"] == 7
        assert seen["requestId"]
        assert seen["updates"][-1] == "COMPLETED"
        assert seen["uploaded"] == 8

    def test_the_ai_sdk(self, ruth: Any) -> None:
        """Vercel's, and RunPod's provider for it."""
        seen = run(ruth.url, "aisdk.mjs")
        assert [(name, made["error"]) for name, made in seen.items() if "error" in made] == []
        assert len(seen) == 8
        assert {name: made["type"] for name, made in seen.items() if made["type"] != "image/png"} == {
            "replicate": "image/webp",
            "replicateFlux2": "image/webp",
            "bflFlux2": "image/jpeg",
        }

    def test_hugging_face(self, rita: Any) -> None:
        """Which model of Replicate's or fal's one of the hub is, it is told by the script."""
        seen = run(rita.url, "huggingface.mjs")
        assert [(name, made["error"]) for name, made in seen.items() if "error" in made] == []
        assert {name: made["type"] for name, made in seen.items()} == {
            "replicate": "image/webp",
            "fal-ai": "image/jpeg",
        }
