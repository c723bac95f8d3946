"""The base of every value that travels, frozen and strict about its fields; and the addresses in them."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that never changes once made and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def is_web_address(text: str) -> bool:
    """Whether a text is an http(s) URL of some host."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _checked(text: str) -> str:
    if not is_web_address(text):
        raise ValueError(f"must be an http(s) URL; got {text!r}")
    return text


WebAddress = Annotated[str, AfterValidator(_checked)]
"""An http(s) URL."""
