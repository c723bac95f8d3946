"""A transformer from a GGUF file, as ComfyUI's users keep them: weights of 4 to 8 bits, multiplied in bf16."""

from pathlib import Path
from typing import Any

import diffusers
from huggingface_hub import hf_hub_download

from storage.contracts import errors


def located(file: str) -> Path:
    """A file of this machine, or `owner/repository/path` on the hub. Raises `errors.ModelUnavailableError`."""
    local = Path(file)
    if local.is_file():
        return local
    owner, _, rest = file.partition("/")
    repository, _, path = rest.partition("/")
    if local.is_absolute() or not path:
        raise errors.ModelUnavailableError(f"there is no file {local.name} below the weights directory")
    return Path(hf_hub_download(f"{owner}/{repository}", path))


def transformer(path: Path) -> Any:
    """Loads the transformer from a GGUF file instead of the weights' own; for `loading.pipeline`'s `special`."""

    def load(kind: type[Any], arguments: dict[str, Any]) -> tuple[Any, dict[str, list[str]]]:
        loaded = kind.from_single_file(
            str(path),
            config=arguments["pretrained_model_name_or_path"],
            subfolder=arguments["subfolder"],
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=arguments["dtype"]),
            torch_dtype=arguments["dtype"],
            local_files_only=arguments["local_files_only"],
            **({"revision": arguments["revision"]} if arguments.get("revision") else {}),
        )
        # What the file lacks stays without memory, which is looked for in any case.
        return loaded, {"missing_keys": [], "mismatched_keys": []}

    return load
