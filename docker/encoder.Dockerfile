# The encoder service. Build from the repository's root:
#   docker build --file docker/encoder.Dockerfile --tag vscan-encoder .
#   docker build --file docker/encoder.Dockerfile --build-arg VARIANT=cuda --tag vscan-encoder:cuda .
#
# --build-arg DEBIAN=debian@sha256:DIGEST   the base by its digest, where a tag is not enough
# --build-arg VARIANT=cuda                  torch of PyPI with its CUDA libraries (gigabytes); the host brings the driver alone
# --build-arg TORCH_INDEX_URL=URL           another index for the CPU's torch; empty: only what pip is configured with
#
# Debian's own Python: its security updates come with the base's, the CPU variant's instructions run as they are in a chroot
# (tests/system/test_images.py), and it is a version that the tests run on. docs/images.md has the whole.
# decoder.Dockerfile is this file with another name and other ports; a test compares them.
ARG DEBIAN=debian:bookworm-20251229-slim

FROM ${DEBIAN} AS base
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get upgrade -y \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
RUN groupadd --gid 10001 vscan && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin vscan

FROM base AS tools
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv
RUN python3 -m venv /pip && python3 -m venv --without-pip /venv
WORKDIR /src
COPY pyproject.toml constraints.txt docker/requirements.py ./

# What the service needs, without its code: this layer changes with pyproject.toml and constraints.txt alone.
FROM tools AS dependencies
ARG VARIANT=cpu
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN case $VARIANT in cpu | cuda) ;; *) echo "VARIANT is cpu or cuda, not $VARIANT" >&2; exit 2 ;; esac \
    && python3 requirements.py serve >requirements.txt \
    && if [ "$VARIANT" = cuda ]; then TORCH_INDEX_URL=; fi \
    && PIP_CONSTRAINT=constraints.txt /pip/bin/pip --python /venv/bin/python install --no-cache-dir --no-compile \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --requirement requirements.txt
# The root file system may be read-only, so the bytecode is there from the start, whatever the files' times are: also (-f) of what
# this Python has compiled for itself when it started. Not the tests that packages bring; one of torch's is for a later Python.
RUN /venv/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -x '/tests/|/py312_intrinsics' /venv/lib
RUN /venv/bin/python -c "import runpy, sysconfig; torch = runpy.run_path(sysconfig.get_path('purelib') + '/torch/version.py'); \
    assert (torch['cuda'] is not None) == ('$VARIANT' == 'cuda'), torch['__version__']"

FROM tools AS application
COPY README.md LICENSE ./
COPY vscan vscan
COPY client client
COPY encoder_service encoder_service
COPY decoder_service decoder_service
COPY gateway_service gateway_service
COPY embedded_model embedded_model
COPY page_service page_service
COPY studies studies
RUN PIP_CONSTRAINT=constraints.txt /pip/bin/pip --python /venv/bin/python install --no-cache-dir --no-compile --no-deps --target /app . \
    && /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app

FROM base
COPY --from=dependencies /venv /venv
COPY --from=application /app /app
ENV PATH=/venv/bin:/app/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/app PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    VSCAN_ENCODER_HEALTH_BIND=0.0.0.0:7073
WORKDIR /
USER 10001:10001
# gRPC; health, which is open; metrics, which are not unless VSCAN_ENCODER_METRICS_BIND says so.
EXPOSE 7071 7073 9465
STOPSIGNAL SIGTERM
# Whether it lives. Whether it is ready is for whoever sends it questions: the same command without --service.
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m CMD ["vscan", "health", "127.0.0.1:7073", "--service", "liveness"]
ENTRYPOINT ["tini", "--", "python", "-m", "encoder_service"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vscan-encoder" \
    org.opencontainers.image.description="The vision encoder of vscan-serve" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
