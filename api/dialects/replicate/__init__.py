"""Replicate's predictions. Results and uploads come from our own host, since its clients send their key along to them.

`asking` translates requests, `answers` what came of them, `routes` joins them.
"""

from api.dialects.base import Dialect
from api.dialects.replicate import library
from api.dialects.replicate.answers import described, problem, wording
from api.dialects.replicate.routes import router

router.include_router(library.router)

DIALECT = Dialect(
    name="replicate",
    router=router,
    problem=problem,
    wording=wording,
    describe=described,
    aim=(
        "export REPLICATE_BASE_URL={url}",
        "export REPLICATE_API_TOKEN=<key>",
        'replicate.run("black-forest-labs/flux-kontext-dev", input={"prompt": "…", "input_image": open("photo.png", "rb")})',
    ),
)
