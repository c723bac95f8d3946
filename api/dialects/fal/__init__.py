"""The fal queue: an app is a model, a request is a generation or a few.

`asking` translates requests, `answers` what came of them, `routes` joins them.
"""

from api.dialects.base import Dialect
from api.dialects.fal import storage
from api.dialects.fal.answers import problem, wording
from api.dialects.fal.routes import router

router.include_router(storage.router)

DIALECT = Dialect(
    name="fal",
    router=router,
    problem=problem,
    wording=wording,
    aim=(
        "export FAL_QUEUE_RUN_HOST=<our host, with TLS> FAL_RUN_HOST=<our host>/run",
        "export FAL_KEY=<key>",
        'fal_client.subscribe("fal-ai/flux-kontext/dev", arguments={"prompt": "…", "image_url": "…"})',
    ),
)
