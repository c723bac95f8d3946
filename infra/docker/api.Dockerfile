# The API: no torch, no GPU.
FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY infra/locks/api.txt infra/locks/api.txt
RUN pip install --require-hashes -r infra/locks/api.txt
COPY pyproject.toml README.md LICENSE ./
COPY storage storage
COPY api api
COPY workers workers
COPY infra infra
RUN pip install --no-deps . && useradd --uid 10001 --no-create-home darkroom
USER 10001
ENV DARKROOM_HOST=0.0.0.0 DARKROOM_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, ssl, urllib.request; \
    scheme = 'https' if os.environ.get('DARKROOM_TLS_CERTIFICATE') else 'http'; \
    urllib.request.urlopen(f'{scheme}://127.0.0.1:8000/health/ready', timeout=2, context=ssl._create_unverified_context())"]
CMD ["python", "-m", "api"]
