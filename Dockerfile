# `verydeep serve` in a container: docker build -t verydeep .
# With CUDA's libraries:         docker build -t verydeep-cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
FROM python:3.11-slim-bookworm AS build

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# The C++ compiler is for the CPU engine; it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/verydeep
ENV PATH=/opt/verydeep/bin:$PATH
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url "${TORCH_INDEX}" ".[serve]"

FROM python:3.11-slim-bookworm

# libgomp is torch's; the service runs as nobody in particular.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 verydeep
COPY --from=build /opt/verydeep /opt/verydeep
ENV PATH=/opt/verydeep/bin:$PATH
USER 1000
WORKDIR /home/verydeep
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["verydeep", "serve", "--host", "0.0.0.0"]
CMD ["/weights"]
