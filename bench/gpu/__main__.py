"""`python -m bench.gpu --out FILE.json`: measure what is listed in `cases`, print a table, and write it after each row."""

import argparse
import contextlib
import faulthandler
import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from bench.gpu import building, cold, measuring, whole
from bench.gpu.cases import FIRST, LAST, Case, Machine
from bench.gpu.measuring import Row
from storage.settings import StoreSettings
from workers.pipelines import device, faults

MATMUL = 8192
"""Side of the matrices whose product gives the roof."""

LATE_S = 60
"""Seconds that a row may take beyond the time."""

ALL = (*FIRST, Case(name="worker", rows=whole.rows), Case(name="cold", rows=cold.rows), *LAST)


def main() -> None:
    """Run until everything is measured or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/gpu.json"), help="where the rows go, as JSON")
    parser.add_argument("--seconds", type=float, default=460, help="no case is begun after so long")
    parser.add_argument("--cases", default=",".join(case.name for case in ALL), help="default: all, in this order")
    parser.add_argument("--shrunk", action="store_true", help="the same code with models of two layers, on a CPU")
    asked = parser.parse_args()
    began = time.monotonic()
    with building.shrunk() if asked.shrunk else contextlib.nullcontext():
        machine = _machine(shrunk=asked.shrunk)
        table = Table(asked.out, machine)
        for name in asked.cases.split(","):
            (case,) = (one for one in ALL if one.name == name)
            left_s = asked.seconds - (time.monotonic() - began)
            # One that hangs is not to take the time of the lease; what was measured is in the file.
            faulthandler.dump_traceback_later(max(left_s, 0) + LATE_S, exit=True)
            is_alive = _run(case, machine, table, left_s=left_s)
            faulthandler.cancel_dump_traceback_later()
            if not is_alive:
                break
            # What was compiled for one model is of no use to the next, and holds on to memory.
            torch._dynamo.reset()
            building.free()
        table.end(time.monotonic() - began)
    if asked.shrunk and table.failed:
        raise SystemExit(f"failed: {', '.join(table.failed)}")


def _run(case: Case, machine: Machine, table: "Table", left_s: float) -> bool:
    """Whether anything can be measured after it."""
    if left_s <= 0:
        table.note(case.name, "not begun: the time is over")
        return True
    began = time.monotonic()
    try:
        for row in case.rows(machine):
            table.add(row)
            if time.monotonic() - began > left_s:
                table.note(case.name, "cut off: the time is over")
                return True
    except Exception as exc:
        traceback.print_exc()
        table.note(case.name, f"failed: {type(exc).__name__}: {str(exc)[:300]}", failed=True)
        return not (isinstance(exc, RuntimeError) and faults.is_fault(exc))
    return True


def _machine(*, shrunk: bool) -> Machine:
    known = StoreSettings().read_catalog()
    if shrunk or not torch.cuda.is_available():
        if not shrunk:
            raise SystemExit("no CUDA device here: --shrunk runs the same code on a CPU")
        return Machine(
            known=known, gpu_type="h100", device="cpu", dtype=torch.float32, side=128, steps_scale=0.1, runs=1,
            roof=measuring.matmul_flops_per_s("cpu", 512, torch.float32),
        )  # fmt: skip
    return Machine(
        known=known, gpu_type=_gpu_type(known.gpu_types), device="cuda", dtype=torch.bfloat16, side=1024, steps_scale=1,
        runs=2, roof=measuring.matmul_flops_per_s("cuda", MATMUL),
    )  # fmt: skip


def _gpu_type(known: Any) -> str:
    for name, gpu in known.items():
        with contextlib.suppress(ValueError):
            if gpu.device_name:
                device.check(name, gpu)
                return str(name)
    raise SystemExit(f"the catalog has no GPU type for {torch.cuda.get_device_name()}")


class Table:
    """The rows so far, printed as they come and kept in a file that is whole at any moment."""

    def __init__(self, path: Path, machine: Machine) -> None:
        self._path, self._began = path, time.monotonic()
        on_gpu = machine.device == "cuda"
        self._kept: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if on_gpu else "CPU, shrunk models",
            "gpu_type": machine.gpu_type,
            "torch": torch.__version__,
            "matmul_tflop_per_s": round(machine.roof / 1e12, 1),
            "rows": [],
            "notes": {},
        }
        self.failed: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{self._kept['device']}, torch {torch.__version__}, product {self._kept['matmul_tflop_per_s']} TFLOP/s")
        columns = f"{'edit s':>8}{'step ms':>9}{'of roof':>8}{'peak/sum':>9}{'warm-up s':>10}{'error':>8}  plan"
        print(f"{'model':<18}{'what':<24}{'refs':>4}{'steps':>6}{columns}", flush=True)

    def add(self, row: Row) -> None:
        """Print and keep a row."""
        ratio = measuring.worst_ratio(row)
        numbers = (
            (row.edit_s, 8, ".2f"), (row.step_ms, 9, ".1f"), (row.share, 8, ".0%"), (ratio, 9, ".2f"),
            (row.warm_up_s, 10, ".1f"), (row.error, 8, ".4f"),
        )  # fmt: skip
        cells = "".join(f"{'-' if value is None else format(value, form):>{width}}" for value, width, form in numbers)
        print(
            f"{row.model:<18}{row.label:<24}{row.references:>4}{row.steps:>6}{cells}  {row.plan} {row.note}", flush=True
        )
        self._kept["rows"].append({**row.as_json(), "at_s": round(time.monotonic() - self._began, 1)})
        self._write()

    def note(self, case: str, text: str, *, failed: bool = False) -> None:
        """Say what became of a case."""
        print(f"{case}: {text}", flush=True)
        self._kept["notes"][case] = text
        if failed:
            self.failed.append(case)
        self._write()

    def end(self, seconds: float) -> None:
        """Say how long all of it took."""
        self._kept["seconds"] = round(seconds, 1)
        self._write()
        print(f"{seconds:.0f} s in all; rows in {self._path}")

    def _write(self) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._kept, indent=1))
        partial.replace(self._path)


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    main()
