"""`edit` and what is done with single generations."""

import base64
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from darkroom.cli import options, printing
from darkroom.cli.options import Id, Json, UsageError, service_of
from darkroom.cli.progress import EditProgress
from darkroom.faults import CancelledError, EditFailedError
from darkroom.shapes import FORMATS, Picture
from darkroom.synchronous import Client

PANEL = "Editing"


def add_to(application: typer.Typer) -> None:
    """Declare the commands."""
    for function in (edit, download, cancel, replay, retry, erase, verify):
        application.command(rich_help_panel=PANEL)(function)


def edit(
    context: typer.Context,
    image: Annotated[
        str,
        typer.Argument(
            help="A file or an http(s) URL; - makes a picture from text alone, with models that can: those of FLUX.2."
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="The instruction.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="File or folder to save to, - for standard output; default: here.")
    ] = None,
    model: options.Model = options.DEFAULT_MODEL,
    also: Annotated[list[str] | None, typer.Option("--also", help="A further picture; may be given again.")] = None,
    mask: Annotated[str | None, typer.Option(help="A picture that is white where to paint anew.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed and request give the same pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely the prompt is followed.")] = None,
    aspect_ratio: Annotated[str | None, typer.Option(help="Such as 16:9; default: the input's shape.")] = None,
    size: Annotated[str | None, typer.Option(help="Such as 1024x768, or `input` for the input's own size.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="webp, jpg or png; default: as --out ends.")] = None,
    model_profile: options.ModelProfile = None,
    gpu: options.Gpu = None,
    region: options.Region = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds after which it is over, whatever happens.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="USD; run only where it costs no more.")] = None,
    no_store: Annotated[bool, typer.Option("--no-store", help="Have everything erased ten minutes after it.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any parameter as name=value.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Show the result.")] = False,
    json: Json = False,
) -> None:
    """Edit a picture, watch it being made, save the result.

    Ctrl-C cancels the edit.
    """
    more = options.parameters(settings or [])
    if more.get("num_generations", 1) != 1:
        raise UsageError("edit makes one picture; another --seed makes another")
    if out == "-" and json:
        raise UsageError("--out - and --json both write to standard output")
    place = _Place(
        out, format_ or more.pop("output_format", None), not_over=[image, *(also or []), *([mask] if mask else [])]
    )
    sent: dict[str, Any] = {
        "seed": seed, "num_inference_steps": steps, "guidance": guidance, "aspect_ratio": aspect_ratio,
        "output_format": place.format, "profile": model_profile, "gpu_type": gpu, "region": region, "deadline": deadline,
        "max_cost_usd": max_cost, "no_store": no_store or None, **_size(size), **more,
    }  # fmt: skip
    pictures = None if image == "-" else [image, *(also or [])]
    with service_of(context).open() as client:
        picture = _edited(
            client, pictures[0] if pictures and len(pictures) == 1 else pictures, prompt, model=model, mask=mask,
            idempotency_key=uuid.uuid4().hex, **{name: value for name, value in sent.items() if value is not None},
        )  # fmt: skip
    saved = place.save(picture)
    if note := (picture.generation.raw.get("weights") or {}).get("note"):
        printing.note(f"Made by {picture.generation.raw['weights']['name']}. {note}")
    if "cropped and scaled" in (fit := picture.generation.raw.get("fit") or ""):
        printing.err.print(fit, markup=False)
    if json:
        printing.as_json({**picture.generation.raw, "saved": saved})
    elif saved:
        printing.out.print(saved, markup=False)
    _show(picture, saved, show)


def _edited(client: Client, *arguments: Any, **named: Any) -> Picture:
    id_ = None
    try:
        with _noted_interrupt() as check:
            accepted = client.enqueue(*arguments, **named)
            id_ = accepted.ids[0]
        check()
        with EditProgress() as progress:
            progress.state(client.generation(id_))
            for event in client.follow(id_, since=accepted.cursor):
                progress.event(event)
        return client.picture(id_)
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            if id_ is not None and client.cancel(id_):
                printing.err.print(f"cancelled {id_}")
        raise
    except (EditFailedError, CancelledError):
        raise
    except Exception:
        if id_ is not None:
            printing.err.print(f"the edit goes on: darkroom download {id_}")
        raise


@contextlib.contextmanager
def _noted_interrupt() -> Iterator[Callable[[], None]]:
    """Ctrl-C within the block is noted, and raised by the call that is given; a second one is raised at once.

    A user who stopped between a request and its answer would not know what there is to cancel.
    """
    is_interrupted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        if is_interrupted:
            raise KeyboardInterrupt
        is_interrupted = True
        # At once and whole: the next Ctrl-C may come while a line is printed.
        os.write(sys.stderr.fileno(), b"stopping when the service has answered; Ctrl-C again stops at once\n")

    def check() -> None:
        if is_interrupted:
            raise KeyboardInterrupt

    # In the background it is ignored, and stays so.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    except Exception:
        # Whatever else went wrong, it is over because somebody wanted that.
        check()
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _size(size: str | None) -> dict[str, object]:
    if size is None:
        return {}
    if size == "input":
        return {"exact_size": True}
    width, x, height = size.partition("x")
    if not x or not width.isdecimal() or not height.isdecimal():
        raise UsageError(f"--size is such as 1024x768, or `input`; got {size!r}")
    return {"width": int(width), "height": int(height)}


class _Place:
    """Where a result is saved, looked at before anything is paid for."""

    def __init__(self, out: str | None, format_: str | None, *, not_over: Sequence[str] = ()) -> None:
        self._out = None if out in (None, "-") else Path(str(out)).expanduser()
        self._is_standard = out == "-"
        if (
            self._out
            and self._out.is_file()
            and any(Path(one).expanduser().resolve() == self._out.resolve() for one in not_over)
        ):
            raise UsageError(f"--out would replace the picture itself: {out}")
        ending = self._out.suffix.lower() if self._out and not self._out.is_dir() else ""
        if ending and ending not in FORMATS:
            raise UsageError(f"--out ends in .webp, .jpg or .png; got {ending}")
        if format_ is not None and format_ not in FORMATS.values():
            raise UsageError(f"--format is webp, jpg or png; got {format_}")
        if format_ and ending and FORMATS[ending] != format_:
            raise UsageError(f"--out ends in {ending} and --format is {format_}")
        self.format: str = format_ or FORMATS.get(ending, "webp")
        if self._is_standard and sys.stdout.isatty():
            raise UsageError("--out - writes a picture to standard output, which is a terminal here")
        folder = Path() if self._out is None else self._out if self._out.is_dir() else self._out.parent
        if not self._is_standard and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise UsageError(f"{folder} is no folder that can be written to")

    def save(self, picture: Picture) -> str | None:
        """Save; the file's name, if there is a file."""
        if self._is_standard:
            sys.stdout.buffer.write(picture.data)
            return None
        name = f"{picture.generation.id}.{picture.format}"
        file = Path(name) if self._out is None else self._out / name if self._out.is_dir() else self._out
        try:
            return str(picture.save(file))
        except OSError:
            printing.err.print(f"the result is kept: darkroom download {picture.generation.id}")
            raise


def _show(picture: Picture, saved: str | None, opened: bool) -> None:
    """In the terminal where it shows pictures, in a viewer where that is asked for."""
    if opened and saved:
        typer.launch(saved)
    program = os.environ.get("TERM_PROGRAM", "")
    if sys.stdout.isatty() and program in ("iTerm.app", "WezTerm", "vscode"):
        encoded = base64.b64encode(picture.data).decode()
        sys.stdout.write(f"\033]1337;File=inline=1;width=40;preserveAspectRatio=1:{encoded}\a\n")


def download(
    context: typer.Context,
    generation_id: Id,
    out: Annotated[str | None, typer.Option("--out", "-o", help="File or folder, - for standard output.")] = None,
    json: Json = False,
) -> None:
    """Save a result, waiting for it if need be."""
    with service_of(context).open() as client:
        place = _Place(out, None)
        picture = client.picture(generation_id)
    saved = place.save(picture)
    if json:
        printing.as_json({**picture.generation.raw, "saved": saved})
    elif saved:
        printing.out.print(saved, markup=False)


def cancel(context: typer.Context, generation_ids: Annotated[list[str], typer.Argument(metavar="ID…")]) -> None:
    """Cancel generations; those that are over already stay as they are."""
    with service_of(context).open() as client:
        for id_ in generation_ids:
            if client.cancel(id_):
                printing.out.print(f"{id_}: cancelled", markup=False)
            else:
                status = client.generation(id_).status
                printing.out.print(f"{id_}: it was over already ({status})", markup=False)


def replay(context: typer.Context, generation_id: Id, json: Json = False) -> None:
    """Run a generation again: same pictures, parameters and seed. Prints the new id."""
    with service_of(context).open() as client:
        accepted = client.replay(generation_id)
    printing.as_json({"ids": accepted.ids, "cursor": accepted.cursor}) if json else print(accepted.ids[0])  # noqa: T201


def retry(context: typer.Context, generation_id: Id, json: Json = False) -> None:
    """Queue a failed generation again, under the same id."""
    with service_of(context).open() as client:
        generation = client.retry(generation_id)
    printing.as_json(generation.raw) if json else printing.out.print(
        f"{generation.id}: {generation.status}", markup=False
    )


def erase(
    context: typer.Context,
    generation_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="All that this key's tenant ever asked for.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete all that is kept of generations: record, prompt, pictures, events."""
    if bool(generation_ids) == everything:
        raise UsageError("name generations, or --everything")
    what = "everything that this tenant has" if everything else f"{len(generation_ids or [])} generation(s)"
    if not yes and not sys.stdin.isatty():
        raise UsageError("erase asks before it does anything, and there is no terminal; --yes does it without")
    if not yes and not typer.confirm(f"Erase {what}? It cannot be brought back", err=True):
        raise typer.Exit(1)
    with service_of(context).open() as client:
        # Each as it comes: one that is not there hides none of those before it.
        for id_ in generation_ids or ["everything"]:
            if everything:
                counts = client.ask("DELETE", "/api/ai/queue", params={"erase": "everything"})["erased"]
            else:
                counts = client.erase(id_)
            if json:
                printing.as_json_lines([{"generation_id": id_, **counts}])
            else:
                told = ", ".join(f"{number} {name}" for name, number in counts.items())
                printing.out.print(f"{id_}: erased {told}", markup=False)


def verify(
    context: typer.Context, image: Annotated[Path, typer.Argument(exists=True, dir_okay=False)], json: Json = False
) -> None:
    """Say what a picture's content credentials tell, and whether it came from this service."""
    with service_of(context).open() as client:
        report = client.verify(image)
    if json:
        printing.as_json(report)
    else:
        printing.facts({name: value for name, value in report.items() if not isinstance(value, dict | list)})
