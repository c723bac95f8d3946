# The housekeeping worker: neither web framework nor torch.
FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY infra/locks/housekeeping.txt infra/locks/housekeeping.txt
RUN pip install --require-hashes -r infra/locks/housekeeping.txt
COPY pyproject.toml README.md LICENSE ./
COPY storage storage
COPY api api
COPY workers workers
COPY infra infra
RUN pip install --no-deps . && useradd --uid 10001 --no-create-home darkroom
USER 10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-m", "workers.health"]
CMD ["python", "-m", "workers.housekeeping"]
