"""FLUX.2 [dev]'s reader of chats and pictures, without torchvision."""

import importlib
import sys
from typing import Any

from transformers.utils import is_torchvision_available

from storage.contracts import errors

_PIXTRAL = "transformers.models.pixtral"


def pixtral() -> Any:
    """Transformers' `PixtralProcessor`, which from now on loads by its name, too.

    transformers 5 hides the class where there is no torchvision, yet uses none of it when Pillow reads the pictures. The
    published weights name that class, so without this they would only load where a torchvision fits the installed torch.
    Raises `errors.ModelUnavailableError` when what is installed is not as expected.
    """
    try:
        if not is_torchvision_available():
            by_pillow = importlib.import_module(f"{_PIXTRAL}.image_processing_pil_pixtral")
            sys.modules.setdefault(f"{_PIXTRAL}.image_processing_pixtral", by_pillow)
        processor = importlib.import_module(f"{_PIXTRAL}.processing_pixtral").PixtralProcessor
    except (ImportError, RuntimeError, AttributeError) as exc:
        raise errors.ModelUnavailableError(f"The installed transformers or torchvision does not fit: {exc}") from exc
    # As it is registered: loading a model replaces the module that an earlier `import transformers` bound.
    importlib.import_module("transformers").PixtralProcessor = processor  # type: ignore[attr-defined]
    return processor
