"""Filters: what may not be asked, shown or made. A word list looks at prompts, an image classifier at inputs and results.

A verdict is data; what is filtered fails as `content_filtered` and no picture of any colour is published.
"""

import hashlib
import logging
import re
import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image

from storage.contracts import errors

log = logging.getLogger(__name__)

Stage = Literal["prompt", "input", "output"]

WORDS_FILE = Path(__file__).parent / "filtered_words.txt"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a filter found: a score from 0 to 1, and the threshold from which on it refuses."""

    stage: Stage
    filter: str
    version: str
    score: float
    threshold: float

    def enforce(self) -> None:
        """Raises `errors.ContentFilteredError` with the verdict when it refuses."""
        if self.score >= self.threshold:
            message = f"The {self.stage} was refused by the filter {self.filter}"
            raise errors.ContentFilteredError(message, details=asdict(self))


class ImageFilter(Protocol):
    """Judges pictures."""

    def judge(self, picture: Image.Image, stage: Stage) -> Verdict:
        """The verdict on one picture."""
        ...


class WordFilter:
    """Refuses prompts that contain one of some phrases, whatever stands between their letters' accents, case and spaces."""

    def __init__(self, phrases: Sequence[str]) -> None:
        known = sorted({_plain(phrase) for phrase in phrases} - {""})
        self._version = hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]
        self._pattern = re.compile(r"\b(" + "|".join(map(re.escape, known)) + r")\b") if known else None

    @classmethod
    def from_file(cls, file: Path) -> "WordFilter":
        """One phrase a line; lines that begin with # are comments. Raises `ValueError`."""
        try:
            lines = file.read_text().splitlines()
        except OSError as exc:
            raise ValueError(f"DARKROOM_FILTERED_WORDS {file}: {exc.strerror}") from exc
        return cls([line for line in lines if not line.startswith("#")])

    def judge(self, prompt: str) -> Verdict:
        """1 when a phrase is in it, else 0."""
        refused = self._pattern is not None and self._pattern.search(_plain(prompt)) is not None
        return Verdict(stage="prompt", filter="words", version=self._version, score=float(refused), threshold=1.0)


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    # Neither accents nor characters that nobody sees.
    letters = "".join(
        char for char in decomposed if not unicodedata.combining(char) and unicodedata.category(char) != "Cf"
    )
    return " ".join(re.findall(r"[^\W_]+", letters.casefold()))


class ImageClassifier:
    """An image classifier of transformers, on the CPU: it runs beside the GPU's work, in tens of milliseconds.

    `source` is a folder or a repository on the hub; the score is the probability of the `refused` labels together.
    """

    def __init__(self, source: str, *, refused: Sequence[str], threshold: float) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        local = Path(source).is_dir()
        try:
            self._processor = AutoImageProcessor.from_pretrained(source, local_files_only=local, backend="pil")
            self._model = AutoModelForImageClassification.from_pretrained(
                source, local_files_only=local, use_safetensors=True
            ).eval()
        except (OSError, ValueError, KeyError) as exc:
            first = str(exc).strip().splitlines()[0]
            raise ValueError(f"DARKROOM_IMAGE_FILTER {source}: {first}; leave it empty to go without") from exc
        names: dict[str, int] = self._model.config.label2id
        missing = [label for label in refused if label not in names]
        if missing:
            raise ValueError(f"DARKROOM_IMAGE_FILTER_LABELS: {missing[0]!r} is none of {', '.join(names)}")
        self._refused = [names[label] for label in refused]
        self._threshold = threshold
        self._name = source.rstrip("/").rpartition("/")[2]
        self._version = str(getattr(self._model.config, "_commit_hash", None) or "local")
        self._torch = torch
        self._lock = threading.Lock()

    def judge(self, picture: Image.Image, stage: Stage) -> Verdict:
        """See `ImageFilter`."""
        seen = self._processor(images=picture.convert("RGB"), return_tensors="pt")
        with self._lock, self._torch.inference_mode():
            probabilities = self._model(**seen).logits[0].softmax(-1)
        score = float(sum(probabilities[index] for index in self._refused))
        return Verdict(
            stage=stage, filter=self._name, version=self._version, score=round(score, 4), threshold=self._threshold
        )


@dataclass(frozen=True, kw_only=True)
class Filters:
    """All stages. Without an image filter only prompts are looked at."""

    words: WordFilter
    images: ImageFilter | None

    @property
    def judge_pictures(self) -> bool:
        """Whether pictures are looked at."""
        return self.images is not None

    def check_prompt(self, prompt: str) -> None:
        """Raises `errors.ContentFilteredError`."""
        self.words.judge(prompt).enforce()

    def check_picture(self, picture: Image.Image, stage: Stage) -> None:
        """Raises `errors.ContentFilteredError`."""
        if self.images is not None:
            self.images.judge(picture, stage).enforce()


def filters_of(words: Path, classifier: str, *, folder: Path, refused: Sequence[str], threshold: float) -> Filters:
    """Filters of a file of phrases and a classifier, which lies in a folder of that name below `folder` or on the hub.

    Without a classifier nobody looks at pictures.
    """
    if not classifier:
        log.warning("no image filter: inputs and results are not looked at")
        return Filters(words=WordFilter.from_file(words), images=None)
    source = folder / classifier
    images = ImageClassifier(str(source) if source.is_dir() else classifier, refused=refused, threshold=threshold)
    return Filters(words=WordFilter.from_file(words), images=images)
