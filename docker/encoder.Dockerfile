# The encoder service. Build from the repository's root:
#   docker build --file docker/encoder.Dockerfile --tag vscan-encoder .
# --build-arg TORCH_INDEX_URL=URL adds a package index, for instance one with the torch builds of another CUDA or for the CPU alone.
FROM python:3.12-slim AS build
ARG TORCH_INDEX_URL=""
WORKDIR /src
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY vscan vscan
COPY client client
COPY encoder_service encoder_service
COPY decoder_service decoder_service
COPY embedded_model embedded_model
RUN /venv/bin/pip install --no-cache-dir ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --constraint constraints.txt '.[serve]'

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home vscan
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 7071
ENTRYPOINT ["python", "-m", "encoder_service"]
