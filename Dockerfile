# The service: answers over HTTP, review pages, verbs. Needs a bundle with exported networks, see docs/how-to/serve.md.
#   docker build -t shelfwise .
#   docker build -t shelfwise --build-arg EXTRAS=serve,postgres,train .     for bundles that are not exported
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
RUN python -m venv /opt/shelfwise
ENV PATH=/opt/shelfwise/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
ARG EXTRAS=serve,postgres,openvino
RUN pip install -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11.14-slim-bookworm
# What LightGBM needs of the system; the newest patch of the pinned release is wanted here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin shelfwise \
    && install -d -o shelfwise -g shelfwise -m 0700 /data
COPY --from=build /opt/shelfwise /opt/shelfwise
ENV PATH=/opt/shelfwise/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    SHELFWISE_CACHE=/data/cache \
    SHELFWISE_KEYS=/data/keys.sqlite
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["shelfwise"]
CMD ["serve", "/bundle", "--host", "0.0.0.0"]
