"""`python -m bench.gpu.carry` puts what a GPU machine without network lacks into `.whl/`, and prints the line that installs it.

The machine is taken to have Python 3.12 with torch, transformers, accelerate, safetensors, tokenizers, numpy and Pillow.
"""

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(".whl")

NEEDED = {
    "diffusers": "the pipelines",
    "importlib_metadata": "diffusers",
    "zipp": "importlib_metadata",
    "peft": "imported by diffusers' loaders where it is installed; another version may not fit",
    "pydantic": "the contracts",
    "pydantic_core": "pydantic",
    "annotated_types": "pydantic",
    "typing_inspection": "pydantic",
    "typing_extensions": "pydantic",
    "pydantic-settings": "the catalog is found by settings",
    "python-dotenv": "pydantic-settings",
    "redis": "the ledger's calls are imported beside its client",
    "pillow": "the worker's pictures",
    "opentelemetry-api": "traces",
    "python-json-logger": "logs",
}
"""Packages, and what needs them there."""

THERE = ("torch", "transformers", "accelerate", "safetensors", "tokenizers", "numpy", "huggingface_hub")
"""What the machine has."""

UNMEASURED = ("cold", "levers", "capped-exact", "capped-h100", "capped", "kontext")
"""Cases that docs/performance.md waits for, and one to compare them with."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

MOST_MB = 22
"""With the tree, less than the 64 MiB that may be carried."""

INSTALL = (
    "python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl"
    " && export PYTHONPATH=/tmp/site:$PWD"
)


def main() -> None:
    """Download and say how to go on."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    FOLDER.mkdir(exist_ok=True)
    for wheel in FOLDER.glob("*.whl"):
        wheel.unlink()
    exact = [f"{name}=={version(name)}" for name in NEEDED]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms),
            *("--dest", str(FOLDER), *exact),
        ],
        check=True,
    )
    megabytes = sum(wheel.stat().st_size for wheel in FOLDER.glob("*.whl")) / 1e6
    if megabytes > MOST_MB:
        raise SystemExit(f"{megabytes:.0f} MB of wheels are more than {MOST_MB}")
    print(f"{len(list(FOLDER.glob('*.whl')))} wheels, {megabytes:.1f} MB, in {FOLDER}/. On the GPU machine:\n")
    print(f"  {INSTALL} && python3 -m bench.gpu --out $OUT/gpu.json --cases {','.join(UNMEASURED)}")
    print("\n(or without --cases, the most telling first)")


if __name__ == "__main__":
    main()
