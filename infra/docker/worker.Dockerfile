# A GPU worker. torch brings the CUDA libraries; the host brings the driver and the NVIDIA container toolkit.
FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY storage storage
COPY api api
COPY workers workers
COPY client client
COPY infra infra
RUN pip install '.[worker]' && useradd --uid 10001 --create-home darkroom \
    && mkdir /weights && chown darkroom /weights
USER darkroom
ENV DARKROOM_WEIGHTS_DIR=/weights HF_HOME=/weights/hub TRANSFORMERS_VERBOSITY=error TQDM_DISABLE=1
VOLUME /weights
# Loading twelve billion parameters takes minutes the first time, when they come from the hub.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m CMD ["python", "-m", "workers.health"]
CMD ["python", "-m", "workers.gpu"]
