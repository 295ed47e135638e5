# syntax=docker/dockerfile:1
# Stages: base -> packages -> runtime (the last, what is uploaded);  base -> train -> export for retraining in an image.
#   docker build .                                      CPU image with the bundle in model/
#   docker build --build-arg DEVICE=gpu .               GPU image: ONNX Runtime with CUDA (not run on a GPU by us)
#   docker build --target train -t mitosis-train .      docker run --entrypoint ... : README, "Train"
#   docker build --target export --output runs/default/model . && docker build --build-arg BUNDLE=runs/default/model .
ARG BASE_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# hadolint ignore=DL3006 -- the version is pinned in BASE_IMAGE's default
FROM ${BASE_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH
WORKDIR /opt/app

FROM base AS packages
ARG DEVICE=cpu
COPY requirements.txt requirements-gpu.txt ./
# pip serves only the build; tests inside packages serve nobody here.
RUN python3 -m venv /opt/venv \
 && if [ "$DEVICE" = gpu ]; then list=requirements-gpu.txt; else list=requirements.txt; fi \
 && /opt/venv/bin/pip install --no-cache-dir -r "$list" \
 && /opt/venv/bin/pip uninstall -y pip setuptools \
 && find /opt/venv -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && find /opt/venv -name "*.pyi" -delete

FROM base AS train
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY mitosis mitosis
COPY training training
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir -e ".[train]"
ENV YOLO_AUTOINSTALL=False YOLO_OFFLINE=True YOLO_CONFIG_DIR=/tmp/yolo
ENTRYPOINT ["/opt/venv/bin/python", "-m"]
CMD ["training.train_detector", "--help"]

# Turns the checkpoints of runs/default in the build context into a bundle, alone in its file system.
FROM train AS exporting
COPY runs/default runs/default
RUN /opt/venv/bin/python -m training.export --run runs/default --output /model

FROM scratch AS export
COPY --from=exporting /model /

FROM base AS runtime
ARG BUNDLE=model
ARG VERSION=0.0.0
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="mitosis" \
      org.opencontainers.image.licenses="AGPL-3.0-only" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
ENV MITOSIS_COMMIT=${COMMIT} HOME=/tmp
COPY --from=packages /opt/venv /opt/venv
COPY process.py ./
COPY mitosis mitosis
COPY resources resources
COPY ${BUNDLE} model
RUN mkdir -p /input /output /opt/ml/model && chown 65532:65532 /output
USER 65532:65532
EXPOSE 4743
ENTRYPOINT ["/opt/venv/bin/python", "/opt/app/process.py"]
