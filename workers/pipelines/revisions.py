"""Which weights were really loaded, for receipts: a commit of the hub, or a fingerprint of the files in a folder."""

import hashlib
import struct
from pathlib import Path

import huggingface_hub

INDEX = "model_index.json"


def of_hub(repository: str, revision: str | None) -> str:
    """The commit that a branch, a tag or nothing stood for when its index was read, as 40 hex digits.

    Raises `OSError` when the index is not in the cache.
    """
    path = huggingface_hub.try_to_load_from_cache(repository, INDEX, revision=revision)
    if not isinstance(path, str):
        raise OSError(f"{repository} has no {INDEX} at {revision or 'its main branch'}")
    # …/snapshots/<commit>/model_index.json
    return Path(path).parent.name


def of_folder(folder: Path) -> str:
    """`sha256:` and 16 hex digits, of every weight file's name, size and header: other shapes, names or places of weights differ.

    Headers alone are read, which takes no time for a hundred gigabytes; changed values in the same places do not show.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8).ljust(8, b"\0"))
            digest.update(opened.read(min(length, 100_000_000)))
    return f"sha256:{digest.hexdigest()[:16]}"
