"""A transformer from a GGUF file, as ComfyUI's users keep them: weights of 4 to 8 bits, multiplied in bf16."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, GGUFLinear, GGUFParameter, dequantize_functions
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
        _plain(loaded)
        # What the file lacks stays without memory, which is looked for in any case.
        return loaded, {"missing_keys": [], "mismatched_keys": []}

    return load


class DequantisingLinear(torch.nn.Module):  # type: ignore[misc]
    """A linear layer whose weight is made of a GGUF file's bytes each time, as diffusers' does, and which can be compiled.

    Its weight is a tensor of bytes like any other; diffusers' is of a class of its own, on which tracing breaks off with some
    backends (with `aot_eager`; Inductor takes both here).
    """

    def __init__(self, linear: GGUFLinear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.nn.Parameter(linear.weight.as_tensor(), requires_grad=False)
        self.bias = linear.bias
        self._kind, self._dtype = linear.weight.quant_type, linear.compute_dtype

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`values` (…, in_features) to (…, out_features)."""
        block, size = GGML_QUANT_SIZES[self._kind]
        blocks = self.weight.view(torch.uint8).reshape(-1, size)
        weight = dequantize_functions[self._kind](blocks, block, size)
        weight = weight.reshape(self.out_features, self.in_features).to(self._dtype)
        return torch.nn.functional.linear(values, weight, None if self.bias is None else self.bias.to(self._dtype))


def _plain(part: torch.nn.Module) -> None:
    """Have linear layers of quantised weights dequantise plain bytes."""
    for module in list(part.modules()):
        for name, child in module.named_children():
            if isinstance(child, GGUFLinear) and isinstance(child.weight, GGUFParameter) and not child.weight.is_meta:
                setattr(module, name, DequantisingLinear(child))
