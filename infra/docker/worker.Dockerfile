# A GPU worker. torch brings the CUDA 13.0 libraries; the host brings the NVIDIA container toolkit and a driver of branch 580
# (580.65.06, the least for CUDA 13.0 by NVIDIA's release notes) or later.
FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 NVIDIA_REQUIRE_CUDA="cuda>=13.0"
# What compiling needs: TorchInductor and Triton build small C programs on the worker. Python's headers are in the base.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY infra/locks/gpu.txt infra/locks/gpu.txt
RUN pip install --require-hashes -r infra/locks/gpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY storage storage
COPY api api
COPY workers workers
COPY infra infra
RUN pip install --no-deps . && useradd --uid 10001 --create-home darkroom \
    && mkdir /weights /cache && chown darkroom /weights /cache
USER 10001
ENV DARKROOM_WEIGHTS_DIR=/weights DARKROOM_COMPILE_CACHE=/cache HF_HOME=/weights/hub TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1
VOLUME ["/weights", "/cache"]
# Loading twelve billion parameters takes minutes the first time, when they come from the hub.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m CMD ["python", "-m", "workers.health"]
CMD ["python", "-m", "workers.gpu"]
