"""Where compiled code is kept, so that a worker that starts again compiles nothing anew, and what is there."""

import hashlib
import os
import re
from pathlib import Path


def keep_in(folder: Path) -> Path:
    """Keep what TorchInductor and Triton compile below a folder, apart for each version of torch and kind of GPU.

    Inductor's own key has the graph and its shapes, so execution plans stay apart by themselves. To be called before
    anything is compiled. Returns the folder.
    """
    import torch  # a worker of stand-ins goes without

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    own = folder / f"torch-{torch.__version__}-{re.sub(r'[^a-z0-9]+', '-', device.lower())}"
    for variable, name in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
        (own / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(own / name)
    return own


def is_kept(folder: Path | None, model: str, plan: str) -> bool:
    """Whether a model's layers were compiled for a plan before, and what came of it is in the folder."""
    return folder is not None and _mark(folder, model, plan).exists()


def note_kept(folder: Path | None, model: str, plan: str) -> None:
    """They are now."""
    if folder is not None:
        _mark(folder, model, plan).touch()


def _mark(folder: Path, model: str, plan: str) -> Path:
    return folder / (hashlib.sha256(f"{model} {plan}".encode()).hexdigest()[:32] + ".compiled")
