"""RunPod serverless: jobs on an endpoint, which is a model.

`asking` translates requests, `buckets` signs for the caller's own storage, `answers` translates what came of it, `routes` joins
them.
"""

from api.dialects.base import Dialect
from api.dialects.runpod.answers import problem, wording
from api.dialects.runpod.routes import router

DIALECT = Dialect(
    name="runpod",
    router=router,
    problem=problem,
    wording=wording,
    aim=(
        "export RUNPOD_ENDPOINT_BASE_URL={url}/v2",
        'runpod.api_key = "<key>"',
        'runpod.Endpoint("black-forest-labs-flux-1-kontext-dev").run_sync({"input": {…}})',
    ),
)
