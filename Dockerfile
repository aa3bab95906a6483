# Targets: cpu (last, so the default), gpu (ONNX Runtime on CUDA), gpu-trt (gpu and TensorRT), gpu-rtx
# (TensorRT for RTX) and export (torch). None contains a model. Builder and runtime share a base image, because the virtual
# environment is copied from one to the other.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/build/constraints.txt
WORKDIR /build
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# Copies only the files that declare dependencies, so that source changes keep this layer cached.
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY labelmint/__init__.py labelmint/
# PIP_CONSTRAINT pins the versions.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[serve,tracing,cli,jpeg,datasets]" && pip uninstall --yes labelmint
COPY bundle /app/bundle
COPY engines /app/engines
COPY labelmint /app/labelmint
COPY service /app/service
RUN python -m compileall -q /app
# /app/sbom.cdx.json lists what is in the image; what writes it is not. Each stage that installs
# more writes it again.
COPY helm/sbom.py /opt/sbom/
# hadolint ignore=DL3013
RUN python3 -m venv --without-pip /opt/sbom/venv \
    && pip --python /opt/sbom/venv install --no-cache-dir --no-compile cyclonedx-python-lib \
    && /opt/sbom/venv/bin/python /opt/sbom/sbom.py /app /opt/venv

# onnxruntime and onnxruntime-gpu share one import name, so one replaces the other.
FROM builder AS builder-gpu
ARG ONNXRUNTIME_GPU_VERSION=1.31.1
ARG CUDA_PYTHON_VERSION=13.4.4
RUN pip uninstall --yes onnxruntime \
    && pip install --no-cache-dir "onnxruntime-gpu[cuda,cudnn]==${ONNXRUNTIME_GPU_VERSION}" \
        "cuda-python==${CUDA_PYTHON_VERSION}" \
    && /opt/sbom/venv/bin/python /opt/sbom/sbom.py /app /opt/venv

# The tensorrt packages download from NVIDIA while they build. The engine onnxruntime-tensorrt needs
# TensorRT 10: build with another TENSORRT_VERSION to use it.
FROM builder-gpu AS builder-gpu-trt
ARG TENSORRT_VERSION=11.4.0.106
RUN pip install --no-cache-dir "tensorrt==${TENSORRT_VERSION}" \
        --extra-index-url https://pypi.nvidia.com \
    && /opt/sbom/venv/bin/python /opt/sbom/sbom.py /app /opt/venv
# For `python -m export.engine_command`, which needs no torch: this image can build engines.
COPY export/__init__.py export/engine.py export/engine_command.py /app/export/
RUN python -m compileall -q /app/export

# ONNX Runtime stays that of the CPU. Both wheels come from the package index; the constraints pin them.
FROM builder AS builder-gpu-rtx
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[serve,tracing,cli,jpeg,datasets,rtx]" \
    && pip uninstall --yes labelmint \
    && /opt/sbom/venv/bin/python /opt/sbom/sbom.py /app /opt/venv
# For `python -m export.engine_command --runtime tensorrt-rtx`, which needs neither torch nor a GPU.
COPY export/__init__.py export/engine.py export/engine_command.py /app/export/
RUN python -m compileall -q /app/export

FROM builder AS builder-export
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" \
        ".[serve,tracing,cli,jpeg,datasets,export]" \
    && pip uninstall --yes labelmint \
    && /opt/sbom/venv/bin/python /opt/sbom/sbom.py /app /opt/venv
COPY checkpoints /app/checkpoints
COPY export /app/export
COPY nets /app/nets
COPY training /app/training
RUN python -m compileall -q /app

# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="labelmint" \
      org.opencontainers.image.description="Streams labeled samples from a generator over gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
# The thresholds make malloc keep large freed buffers; otherwise each message costs page faults.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=33554432 \
    LABELMINT_SERVER_LISTEN=0.0.0.0:50051 LABELMINT_SERVER_METRICS_PORT=9090
WORKDIR /app
USER 10001:10001
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=120s --retries=3 \
    CMD ["python", "-m", "service", "health"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["run"]

FROM runtime AS export
COPY --from=builder-export /opt/venv /opt/venv
COPY --from=builder-export /app /app
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "export"]
CMD ["--help"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=builder-gpu /opt/venv /opt/venv
COPY --from=builder-gpu /app /app

FROM runtime AS gpu-trt
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=builder-gpu-trt /opt/venv /opt/venv
COPY --from=builder-gpu-trt /app /app

FROM runtime AS gpu-rtx
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=builder-gpu-rtx /opt/venv /opt/venv
COPY --from=builder-gpu-rtx /app /app

FROM runtime AS cpu
COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app
