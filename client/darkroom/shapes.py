"""What the service answers, as values. `raw` has everything, under the names of docs/api.md."""

import base64
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FORMATS = {".webp": "webp", ".jpg": "jpg", ".jpeg": "jpg", ".png": "png"}
"""Formats of results, by the ending of a file."""

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
TERMINAL_EVENTS = frozenset({"media_generation_completed", "media_generation_cancelled"})


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Ids of accepted generations, and the cursor from which their events can be read without missing one."""

    ids: tuple[str, ...]
    cursor: str

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Accepted":
        """From the service's answer."""
        return cls(ids=tuple(one["generation_id"] for one in answer["generations"]), cursor=answer["cursor"])


@dataclass(frozen=True, kw_only=True)
class Event:
    """A server-sent event: `cursor` is what a reader resumes from."""

    cursor: str
    type: str
    data: Mapping[str, Any]

    @property
    def generation_id(self) -> str | None:
        """Which generation it is about, if one."""
        return self.data.get("generation_id")

    @property
    def is_terminal(self) -> bool:
        """Whether its generation is over."""
        return self.type in TERMINAL_EVENTS

    @property
    def preview(self) -> bytes | None:
        """A small picture of how the result looks so far (a file's bytes), where previews were asked for."""
        _, comma, encoded = str(self.data.get("preview", "")).partition(",")
        return base64.b64decode(encoded) if comma else None


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A generation as a poll tells it. Times are aware, in UTC."""

    id: str
    status: str
    model: str
    prompt: str
    seed: int
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Generation":
        """From the service's answer."""
        return cls(
            id=answer["generation_id"],
            status=answer["status"],
            model=answer["model_name"],
            prompt=answer["prompt"],
            seed=answer["seed"],
            raw=answer,
        )

    @property
    def is_over(self) -> bool:
        """Whether it succeeded, failed or was cancelled."""
        return self.status in TERMINAL

    @property
    def is_succeeded(self) -> bool:
        """Whether there is, or was, a result."""
        return self.status == "succeeded"

    @property
    def result_url(self) -> str | None:
        """Where the result is downloaded, until `expires_at`; no key is needed."""
        return self.raw["result_url"]  # type: ignore[no-any-return]

    @property
    def expires_at(self) -> datetime | None:
        """When the result is deleted."""
        return self._time("expires_at")

    @property
    def completed_at(self) -> datetime | None:
        """When it was over."""
        return self._time("completed_at")

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the result in pixels."""
        return (self.raw["width"], self.raw["height"]) if self.raw["width"] else None

    @property
    def error_code(self) -> str | None:
        """Why it failed: see docs/errors.md."""
        return self.raw["error_code"]  # type: ignore[no-any-return]

    @property
    def error_message(self) -> str | None:
        """The same as a sentence."""
        return self.raw["error_message"]  # type: ignore[no-any-return]

    @property
    def cost_usd(self) -> float | None:
        """What it cost."""
        return self.raw["cost_usd"]  # type: ignore[no-any-return]

    def _time(self, name: str) -> datetime | None:
        seconds = self.raw.get(name)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A result with its bytes: a picture's file. Notebooks show it."""

    generation: Generation
    data: bytes = field(repr=False)
    content_type: str

    @property
    def format(self) -> str:
        """Its format as `output_format` has it, and the ending of its file: `webp`, `jpg` or `png`."""
        return self.content_type.removeprefix("image/").replace("jpeg", "jpg")

    def save(self, path: str | Path) -> Path:
        """Write the file; its format is the one that was asked for. Warns where the name says another."""
        target = Path(path)
        named = FORMATS.get(target.suffix.lower(), self.format)
        if named != self.format:
            message = f"{target.name} holds a {self.format} picture; ask for output_format={named!r} or name it .{self.format}"
            warnings.warn(message, stacklevel=2)
        target.write_bytes(self.data)
        return target

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        # What Jupyter asks for: WebP is shown by browsers only as HTML.
        encoded = base64.b64encode(self.data).decode()
        caption = json.dumps(self.generation.prompt, ensure_ascii=False).replace("<", "&lt;")
        html = f'<img src="data:{self.content_type};base64,{encoded}" alt=""><div>{caption}, seed {self.generation.seed}</div>'
        return {"text/html": html, "text/plain": repr(self)}
