"""`python -m darkroom.twin`: makes `synchronous` from `asynchronous`, word by word, so that nothing is written twice."""

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "asynchronous.py"
TWIN = SOURCE.with_name("synchronous.py")

WORDS = {
    "AsyncClient": "Client",
    "AsyncIterator": "Iterator",
    "aclose": "close",
    "aread": "read",
    "aiter_sse": "iter_sse",
    "aconnect_sse": "connect_sse",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}

HEAD = (
    '"""The client for everybody who writes no coroutines. Made from `asynchronous` by `python -m darkroom.twin`."""\n'
)


def synchronous() -> str:
    """The twin's source."""
    text = HEAD + SOURCE.read_text().partition('"""\n')[2]
    text = re.sub(r"\basync (def|with|for)\b", r"\1", text)
    text = re.sub(r"\bawait ", "", text)
    text = text.replace("import asyncio\n", "").replace("import uuid\n", "import time\nimport uuid\n")
    text = re.sub(r"\w+", lambda word: WORDS.get(word[0], word[0]), text.replace("asyncio.sleep", "time.sleep"))
    text = text.replace("import Iterator, Callable, Mapping", "import Callable, Iterator, Mapping")
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TWIN), "-"],
        input=text, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return formatted.stdout


if __name__ == "__main__":
    TWIN.write_text(synchronous())
