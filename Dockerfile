# segrefiner serve, on the CPU, as a user without rights, with a root that may be read-only.
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/segrefiner
ENV PATH=/opt/segrefiner/bin:$PATH
RUN pip install "torch>=2.10" --index-url https://download.pytorch.org/whl/cpu
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install ".[app]"

FROM python:3.12-slim
COPY --from=build /opt/segrefiner /opt/segrefiner
# Whatever wants to write finds /tmp; nothing is fetched or reported while the server runs.
ENV PATH=/opt/segrefiner/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    GRADIO_ANALYTICS_ENABLED=False
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["segrefiner", "serve", "--host", "0.0.0.0", "--port", "8000"]
# Others can reach the container, so that it starts with a key only; see compose.yaml.
CMD ["--api-key-file", "/run/secrets/api_key"]
