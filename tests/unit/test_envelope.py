"""What a caller notes about a request comes back as it was, or is refused."""

import math
from typing import Any

import pytest

from api.dialects.oxen import envelope
from storage.contracts import errors


@pytest.mark.parametrize("noted", [{"a": "b", "n": 1, "x": 0.5, "yes": True}, {}, None])
def test_plain_values_are_kept(noted: dict[str, Any] | None) -> None:
    assert envelope.metadata({"metadata": noted}, textual=False) == noted


@pytest.mark.parametrize(
    "noted",
    [{"a": math.inf}, {"a": math.nan}, {"a": [1]}, {"a": None}, {"a" * 65: 1}, {"a": "b" * 501}, [1], "text"],
    ids=str,
)
def test_what_would_not_come_back_is_refused(noted: Any) -> None:
    with pytest.raises(errors.InvalidInputError, match="metadata must be an object"):
        envelope.metadata({"metadata": noted}, textual=False)
