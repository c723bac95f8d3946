"""The GPU benchmark runs from end to end with shrunk models, so that the one call on a real GPU does not fail for a slip."""

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from bench.gpu import carry
from bench.gpu.__main__ import ALL

IN_SHORT = ("kontext", "worker")
"""Cases that have most of the code: plain and planned pipelines, fp8, and the worker around them."""


# All of it takes two minutes of both processors: `make bench-gpu-rehearsal`, before a GPU is at hand.
@pytest.mark.timeout(960)
def test_the_gpu_benchmark_runs_from_end_to_end_with_shrunk_models(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    rehearsed = os.environ.get("REHEARSE_BENCH_GPU") is not None
    # The last is the one before with another profile.
    cases = ",".join(case.name for case in ALL if case.name != "capped-exact" and (rehearsed or case.name in IN_SHORT))
    command = [sys.executable, "-m", "bench.gpu", "--shrunk", "--seconds", "900", "--cases", cases, "--out", str(out)]
    # To compile is half of the work, and `test_execution` does it, too.
    compiling = {} if rehearsed else {"TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(command, env={**os.environ, **compiling}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["notes"] == {}
    measured = {(row["model"], row["label"], row["references"]) for row in found["rows"]}
    wanted = {
        ("flux-kontext-dev", "plain diffusers", 1),
        ("flux-kontext-dev", "exact", 1),
        ("flux-kontext-dev", "fp8", 1),
        ("flux-kontext-dev", "fast", 1),
        ("flux-2-klein-4b", "worker, queued jobs", 1),
    }
    if rehearsed:
        wanted |= {
            ("flux-2-klein-4b", "plain diffusers", 1),
            ("flux-2-klein-4b", "exact", 1),
            ("flux-2-dev", "fast, as on NVIDIA L40S", 0),
            ("flux-kontext-dev", "eager", 1),
            ("flux-kontext-dev", "compiled", 1),
            *(("flux-2-dev", label, references) for label in ("exact", "fp8") for references in (0, 1, 3)),
            ("flux-2-dev", "fast", 0),
            ("flux-2-klein-4b", "cold start, first edit eager", 1),
            ("flux-2-klein-4b", "cold start", 1),
        }
    assert measured >= wanted
    for row in found["rows"]:
        if "error" in row:
            assert 0 < row["error"] < 0.05
    assert sum("error" in row for row in found["rows"]) == (2 if rehearsed else 1)
    if rehearsed:
        (streamed,) = (row for row in found["rows"] if row["label"].startswith("fast, as on"))
        assert streamed["groups"] == {"text encoder": 3, "transformer": 1}


def test_the_most_telling_cases_come_first() -> None:
    assert [case.name for case in ALL][:2] == ["kontext", "flux2"]


ROOT = Path(__file__).parents[2]
STARTED = ("bench.gpu.__main__", "bench.gpu.cold", "workers.loader", "workers.compiling", "workers.pipelines.kontext")
"""Modules that a run begins with, or that another one imports by name."""


def _file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.exists()), None)


def _imports(tree: ast.AST) -> set[str]:
    """Whole names of what a module imports, wherever in it, but for what is imported for types alone."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        found |= _imports(node)
    return found


def test_what_it_imports_is_on_the_machine_or_carried_there() -> None:
    """Of our own modules; what packages need themselves is listed beside them."""
    waiting, seen, foreign = set(STARTED), set[str](), set[str]()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        file = _file_of(module)
        if file is None:
            continue
        for name in _imports(ast.parse(file.read_text())):
            first = name.partition(".")[0]
            if (ROOT / first).is_dir():
                parents = name.split(".")
                waiting |= {".".join(parents[:end]) for end in range(1, len(parents) + 1)} - seen
            elif first not in sys.stdlib_module_names and first:
                foreign.add(first)
    of_module = packages_distributions()
    carried = {name.lower().replace("_", "-") for name in (*carry.NEEDED, *carry.THERE)}
    lacking = {
        name for name in foreign if not {one.lower().replace("_", "-") for one in of_module.get(name, [name])} & carried
    }
    assert lacking <= LAZY, lacking - LAZY


LAZY = {"bitsandbytes", "gguf"}
"""Imported for weights that the benchmark does not have."""
