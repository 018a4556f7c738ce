# The OpenAI-compatible gateway, and the page: clients of the services, without torch. Build from the repository's root:
#   docker build --file docker/gateway.Dockerfile --tag vscan-gateway .
#
# The page is the same image with another start: --entrypoint vscan vscan-gateway page
#
# --build-arg DEBIAN=debian@sha256:DIGEST   the base by its digest, where a tag is not enough
#
# Its base, its tools and the project's code are those of encoder.Dockerfile, word by word: a test compares them.
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

# What gateway and page need, without their code: this layer changes with pyproject.toml and constraints.txt alone.
FROM tools AS dependencies
RUN python3 requirements.py gateway page >requirements.txt \
    && PIP_CONSTRAINT=constraints.txt /pip/bin/pip --python /venv/bin/python install --no-cache-dir --no-compile \
        --requirement requirements.txt
RUN /venv/bin/python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -x /tests/ /venv/lib

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
    PYTHONPATH=/app PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /
USER 10001:10001
# The gateway, the page where that is started instead, and the gateway's metrics, where VSCAN_GATEWAY_METRICS_BIND opens them.
EXPOSE 8000 7080 9466
STOPSIGNAL SIGTERM
# Whether the gateway lives, by TLS where it has a certificate. Where it asks callers for one of theirs (TLS_CLIENT_CA_FILE), or
# where the page is started instead, give the container a check of its own.
HEALTHCHECK --interval=15s --timeout=10s --start-period=1m CMD ["sh", "-c", \
    "exec vscan health http${VSCAN_GATEWAY_TLS_CERT_FILE:+s}://127.0.0.1:8000 --service liveness"]
ENTRYPOINT ["tini", "--", "python", "-m", "gateway_service"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vscan-gateway" \
    org.opencontainers.image.description="The OpenAI-compatible gateway and the page of vscan-serve" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
