"""`python -m tests.faults.mutations --count 10000`: pictures with random damage, decoded as a worker decodes them.

Each must come to a picture or to a refusal; the process that asks must have as much memory afterwards as before.
"""

import argparse
import contextlib
import io
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

import psutil
from PIL import Image

from storage import pictures
from storage.contracts import errors
from tests.conftest import PHOTOGRAPH
from workers.decoding.pool import Decoders


def seeds() -> list[bytes]:
    """Whole pictures of every format and many kinds."""
    photograph = Image.open(PHOTOGRAPH).resize((96, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    variants: list[tuple[Image.Image, str, dict[str, object]]] = [
        (photograph, "JPEG", {}), (photograph, "JPEG", {"progressive": True, "exif": exif}),
        (photograph.convert("CMYK"), "JPEG", {}), (photograph.convert("L"), "JPEG", {}), (photograph, "PNG", {}),
        (photograph.convert("RGBA"), "PNG", {}), (photograph.convert("P"), "PNG", {"transparency": 3}),
        (photograph.convert("I;16"), "PNG", {}), (photograph.convert("1"), "PNG", {}), (photograph, "WEBP", {}),
        (photograph.convert("RGBA"), "WEBP", {"lossless": True}), (photograph, "WEBP", {"exif": exif}),
        (photograph.convert("P"), "GIF", {}), (photograph, "MPO", {"save_all": True, "append_images": [photograph]}),
        (photograph.convert("P"), "GIF", {"save_all": True, "append_images": [photograph.convert("P")]}),
        (photograph, "WEBP", {"save_all": True, "append_images": [photograph.rotate(90)]}),
    ]  # fmt: skip
    found = []
    for image, format_, options in variants:
        buffer = io.BytesIO()
        image.save(buffer, format_, **options)
        found.append(buffer.getvalue())
    return found


def _flipped(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 2, 8, 64])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwritten(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1"])


def _sized(data: bytearray, chance: random.Random) -> None:
    """The head, where sizes stand."""
    for _ in range(chance.choice([1, 2, 4])):
        data[chance.randrange(min(64, len(data)))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(1, len(data)) :]


def _repeated(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    piece = data[at : at + chance.choice([4, 64, 1024])]
    data[at:at] = piece * chance.choice([1, 10, 200])


def _spliced(data: bytearray, chance: random.Random) -> None:
    at, length = chance.randrange(len(data)), chance.choice([1, 16, 256])
    del data[at : at + length]


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [_flipped, _overwritten, _sized, _cut, _repeated, _spliced]


def run(count: int, seed: int) -> tuple[Counter[str], float]:
    """Decode so many. Returns how often what came of it, and by how many MiB this process grew."""
    chance, whole, outcomes = random.Random(seed), seeds(), Counter[str]()
    with contextlib.closing(Decoders(count=2)) as decoders:
        for picture in whole:
            decoders.decode(picture, "input_image")
        before = psutil.Process().memory_info().rss
        for _ in range(count):
            data = bytearray(chance.choice(whole))
            for _ in range(chance.choice([1, 1, 1, 3])):
                if len(data) > 1:
                    chance.choice(DAMAGES)(data, chance)
            outcomes[_outcome(decoders, bytes(data))] += 1
        grown = psutil.Process().memory_info().rss - before
    return outcomes, grown / 2**20


def _outcome(decoders: Decoders, data: bytes) -> str:
    with contextlib.suppress(errors.InvalidInputError):
        # What the API does with it, in its own process.
        pictures.inspect(data, "input_image")
    try:
        decoded = decoders.decode(data, "input_image")
    except errors.InvalidInputError as exc:
        return "exhausted" if "could not be decoded within" in exc.message else "refused"
    return "decoded" if max(decoded.image.size) <= 2048 else "too large"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    asked = parser.parse_args()
    began = time.monotonic()
    outcomes, grown = run(asked.count, asked.seed)
    print(f"seed {asked.seed}: {dict(outcomes)} in {time.monotonic() - began:.0f} s, grown by {grown:.1f} MiB")
    if set(outcomes) - {"decoded", "refused", "exhausted"} or grown > 300:
        sys.exit(1)


if __name__ == "__main__":
    main()
