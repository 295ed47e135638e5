# syntax=docker/dockerfile:1
# Stages: base -> packages -> runtime (the last, what is uploaded);  base -> train -> export for retraining in an image.
# build.sh builds each of them; docs/challenge.md and docs/retraining.md say how they are used.
#   DEVICE=cpu         OpenVINO
#   DEVICE=gpu         and ONNX Runtime with CUDA 12 (see docs/challenge.md, "GPUs")
#   DEVICE=tensorrt    and TensorRT (never installed by us: NVIDIA's own index has it)
ARG BASE_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# The version is pinned in BASE_IMAGE's default.
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH
WORKDIR /opt/app

FROM base AS packages
ARG DEVICE=cpu
ARG PIP_EXTRA_INDEX_URL
COPY requirements*.txt ./
# What only the build needs goes: pip, the packages' own tests, OpenVINO's GPU and NPU plugins, the readers of formats
# other than ONNX, and what reports each start to OpenVINO's maker.
RUN python3 -m venv /opt/venv \
 && if [ "$DEVICE" = cpu ]; then list=requirements.txt; else list="requirements-$DEVICE.txt"; fi \
 && /opt/venv/bin/pip install --no-cache-dir -r "$list" \
 && /opt/venv/bin/pip uninstall -y pip setuptools openvino-telemetry \
 && find /opt/venv -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && find /opt/venv -name "*.pyi" -delete \
 && find /opt/venv -path "*/openvino/libs/*" \( -name "*_intel_gpu_*" -o -name "*_intel_npu_*" -o -name "*_gguf_*" \
      -o -name "*_jax_*" -o -name "*_paddle_*" -o -name "*_pytorch_*" -o -name "*_tensorflow_*" -o -name cache.json \) -delete

# The training wing. torch comes with CUDA; PIP_EXTRA_INDEX_URL can name an index with its far smaller CPU wheels.
FROM base AS train
ARG PIP_EXTRA_INDEX_URL
COPY requirements.txt pyproject.toml README.md LICENSE ./
# The packages' folders, still empty: a change of the code must not install torch again.
RUN mkdir -p mitosis/output \
 && python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir -e ".[train,evaluate]"
COPY mitosis mitosis
COPY training training
ENV YOLO_AUTOINSTALL=False YOLO_OFFLINE=True YOLO_CONFIG_DIR=/tmp/yolo HOME=/tmp
ENTRYPOINT ["/opt/venv/bin/python", "-m"]
CMD ["training.train_detector", "--help"]

# Both networks' checkpoints, in the build context, become a bundle.
FROM train AS exporting
ARG CHECKPOINTS=runs/default
COPY ${CHECKPOINTS}/detector.pt ${CHECKPOINTS}/classifier.pt run/
RUN /opt/venv/bin/python -m training.export --run run --output /model

# With the packages of the runtime, since an engine fits only the TensorRT and the card it was made with.
FROM packages AS engines
ARG DEVICE=cpu
COPY mitosis mitosis
COPY --from=exporting /model /model
RUN if [ "$DEVICE" != tensorrt ]; then echo "DEVICE=$DEVICE: a bundle without TensorRT engines"; \
    elif nvidia-smi; then /opt/venv/bin/python -m mitosis.cli build-engine --model /model; \
    else echo "no NVIDIA card in this build: a bundle without TensorRT engines"; fi

FROM scratch AS export
COPY --from=engines /model /

# The base without what a run never opens. Copied into an empty image below, because a layer cannot give space back.
FROM base AS root
RUN rm -rf /var/lib/apt /var/cache /var/log /usr/share/doc /usr/share/man /usr/share/locale /root/.cache \
 && mkdir -p /input /output /opt/ml/model && chown 65532:65532 /output

FROM scratch AS runtime
ARG BUNDLE=model
ARG VERSION=0.0.0
ARG COMMIT=unknown
# invoke: the container stays up and serves. The platform calls it so only with the label that build.sh then adds.
ARG API_METHOD=exec
LABEL org.opencontainers.image.title="mitosis" \
      org.opencontainers.image.licenses="AGPL-3.0-only" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 MITOSIS_COMMIT=${COMMIT} MITOSIS_API_METHOD=${API_METHOD} \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# The trimmed base as one layer, which is the point:
# hadolint ignore=DL3067
COPY --from=root / /
WORKDIR /opt/app
COPY --from=packages /opt/venv /opt/venv
COPY process.py ./
COPY mitosis mitosis
COPY resources resources
COPY ${BUNDLE} model
USER 65532:65532
EXPOSE 4743
ENTRYPOINT ["/opt/venv/bin/python", "/opt/app/process.py"]
