"""`python -m infra.pin_images`: pins image bases, in Dockerfiles, compose and the chart, to the digests that their tags have now.

Needs Docker with buildx, and a registry that answers.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = (
    ROOT / "docker-compose.yml",
    ROOT / "infra" / "chart" / "values.yaml",
    *sorted((ROOT / "infra" / "docker").glob("*.Dockerfile")),
)

# Images of the project's own have no tag here.
_NAMED = re.compile(r"^(?P<before>FROM |\s+image: )(?P<name>[\w./-]+:[\w.-]+)(?:@sha256:[0-9a-f]{64})?$", re.MULTILINE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def pin(files: Iterable[Path]) -> None:
    """Rewrite the files. Exits where a digest cannot be found."""
    for file in files:
        file.write_text(
            _NAMED.sub(lambda match: f"{match['before']}{match['name']}@{_digest(match['name'])}", file.read_text())
        )


def _digest(name: str) -> str:
    command = ["docker", "buildx", "imagetools", "inspect", name, "--format", "{{.Manifest.Digest}}"]
    try:
        inspected = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as exc:
        sys.exit(f"pin_images: docker cannot be run: {exc}")
    digest = inspected.stdout.strip()
    if inspected.returncode != 0 or not _DIGEST.fullmatch(digest):
        sys.exit(f"pin_images: no digest of {name}: {inspected.stderr.strip() or digest}")
    return digest


if __name__ == "__main__":
    pin(FILES)
