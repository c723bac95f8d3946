"""`python -m workers.decoding.child MEMORY_MB LIMIT_S`: decodes what comes on standard input, within limits, until that ends."""

import contextlib
import math
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any

# All that decoding may need: nothing can be imported once no file can be opened.
from PIL import (  # noqa: F401
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    ImagePalette,
    ImageSequence,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from storage import pictures
from storage.contracts import errors
from workers.decoding import frames, pixels

INPUT, OUTPUT = 0, 1


def main() -> None:
    """Serve."""
    memory_mb, limit_s = int(sys.argv[1]), float(sys.argv[2])
    # Ctrl-C reaches the whole group; the worker finishes what it holds and then closes the pipe.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    status = os.open("/proc/self/status", os.O_RDONLY)
    # It would import the common formats when the first picture is opened.
    Image.preinit()
    _confine(memory_mb)
    frames.send(OUTPUT, {"ready": True})
    with contextlib.suppress(frames.ClosedError):
        while True:
            fields, data = frames.receive(INPUT, most=pictures.MAX_BYTES)
            _allow_processor_time(limit_s)
            answer, body = _answer(fields, data)
            frames.send(OUTPUT, {**answer, "peak_mb": _peak_mb(status)}, body)


def _confine(memory_mb: int) -> None:
    """From now on: so much memory, no new file or socket, no core file, and the first to go when the machine has no memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _allow_processor_time(limit_s: float) -> None:
    """The kernel ends this process once it has computed for so much longer."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + limit_s)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _peak_mb(status: int) -> int:
    """The most memory that this process ever had, in MiB; what `getrusage` says begins with what its parent had."""
    match = re.search(rb"VmHWM:\s+(\d+) kB", os.pread(status, 4096, 0))
    return int(match[1]) // 1024 if match else 0


def _answer(fields: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    field, channel = fields["field"], fields.get("mask_channel")
    try:
        if channel is None:
            image, original = pixels.decode(data, field)
        else:
            image, original = pixels.decode_mask(data, field, channel)
        return {"mode": image.mode, "size": image.size, "original": original}, image.tobytes()
    except errors.InvalidInputError as exc:
        return {"refused": exc.message, "code": exc.code}, b""
    except MemoryError:
        return {"exhausted": True}, b""


if __name__ == "__main__":
    main()
