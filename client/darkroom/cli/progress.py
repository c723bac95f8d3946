"""The progress of an edit: a bar where somebody looks, nothing where nobody does."""

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from darkroom.cli import printing
from darkroom.cli.printing import err
from darkroom.shapes import Event, Generation


class EditProgress:
    """Shows one edit's events."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=28), TextColumn("{task.fields[more]}"),
            TimeElapsedColumn(), console=err, transient=True, disable=not err.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("queued", total=None, more="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def event(self, event: Event) -> None:
        """Show what happened."""
        data = event.data
        if event.type == "media_generation_queued":
            self._show("queued", None, 0, "again" if data.get("attempts") else "")
        elif event.type == "media_generation_started":
            self._show("started", None, 0, "")
        elif event.type == "media_generation_progress":
            if data.get("phase") == "loading":
                self._show("loading the model", 100, data.get("model_loaded_percent", 0), "%")
            elif "steps" in data:
                self._show("editing", data["steps"], data["step"], f"step {data['step']} of {data['steps']}")

    def state(self, generation: Generation) -> None:
        """Show a polled state: how many are before it, and which model is loaded for it."""
        position, waits = generation.raw["queue_position"], printing.waiting(generation.raw.get("waiting_for"))
        if generation.status == "queued":
            ahead = f"{position} before it, " if position else ""
            self._show("queued", None, 0, f"{ahead}waits for {waits}" if waits else ahead)

    def _show(self, what: str, total: float | None, done: float, more: str) -> None:
        self._progress.update(self._task, description=what, total=total, completed=done, more=more)


@contextlib.contextmanager
def of_many(count: int) -> Iterator[Callable[[str], None]]:
    """The progress of so many rows: call with each row's outcome."""
    with Progress(
        TextColumn("{task.completed}/{task.total}"), BarColumn(bar_width=40), TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(), console=err, disable=not err.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task("rows", total=count, counts="")
        outcomes: dict[str, int] = {}

        def done(outcome: str) -> None:
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            told = ", ".join(f"{number} {name}" for name, number in outcomes.items())
            progress.update(task, advance=1, counts=told)

        yield done
