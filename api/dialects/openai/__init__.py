"""OpenAI's Images API: blocking edits and generations, with partial pictures over a stream.

`asking` translates requests, `answers` what came of them, `stream` tells of them as they come, `routes` joins them.
"""

from api.dialects.base import Dialect
from api.dialects.openai.answers import problem
from api.dialects.openai.routes import router

DIALECT = Dialect(
    name="openai",
    router=router,
    problem=problem,
    aim=(
        "export OPENAI_BASE_URL={url}/v1",
        "export OPENAI_API_KEY=<key>",
        'OpenAI().images.edit(model="flux-kontext-dev", image=open("photo.png", "rb"), prompt="…")',
    ),
)
