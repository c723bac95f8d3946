"""Where compiled code is kept, so that a worker that starts again compiles nothing anew."""

import os
import re
from pathlib import Path

import torch


def keep_in(folder: Path) -> Path:
    """Keep what TorchInductor and Triton compile below a folder, apart for each version of torch and kind of GPU.

    Inductor's own key has the graph and its shapes, so execution plans stay apart by themselves. To be called before
    anything is compiled. Returns the folder.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    own = folder / f"torch-{torch.__version__}-{re.sub(r'[^a-z0-9]+', '-', device.lower())}"
    for variable, name in (("TORCHINDUCTOR_CACHE_DIR", "inductor"), ("TRITON_CACHE_DIR", "triton")):
        (own / name).mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(own / name)
    return own
