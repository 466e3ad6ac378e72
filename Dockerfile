# Images for clusters (Kubernetes, or Ray's `docker:` section): nightherd, its models' runtime, Ray.
#
#   docker build --target cpu  -t nightherd:cpu  .
#   docker build --target cuda -t nightherd:cuda .     the default; NVIDIA's driver 525 or newer on the nodes
#
# llama.cpp is compiled for every node that may run the image, not for the one that builds it: GGML_NATIVE is off,
# which asks for AVX2 on x86. Nodes that are all alike gain by LLAMA_CMAKE="-DGGML_AVX512=on ..." (--build-arg).
# The same Ray has to be in the image, in rayjob.yaml, and in cluster.yaml.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CUDA_VERSION=12.8.1
ARG RAY_VERSION=2.60.0
ARG LLAMA_VERSION=0.3.36
ARG LLAMA_CMAKE=""
ARG EXTRAS=s3,gcs,report

FROM ${PYTHON_IMAGE} AS cpu-wheels
ARG LLAMA_VERSION LLAMA_CMAKE
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
# -fno-dse: Debian 12's GCC 12 would drop most of the configuration of AMX, and llama.cpp die of it.
RUN CXXFLAGS=-fno-dse CMAKE_ARGS="-DGGML_NATIVE=off ${LLAMA_CMAKE}" \
    pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python -w /wheels "llama-cpp-python==${LLAMA_VERSION}"

FROM ${PYTHON_IMAGE} AS cpu
ARG RAY_VERSION EXTRAS
# wget: KubeRay's probes. libgomp1: llama.cpp's threads.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 procps wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 ray
COPY --from=cpu-wheels /wheels /wheels
COPY pyproject.toml README.md LICENSE /src/
COPY pipeline /src/pipeline
RUN pip install --no-cache-dir --find-links /wheels "/src[${EXTRAS}]" "ray[default]==${RAY_VERSION}"
USER 1000
WORKDIR /home/ray
CMD ["nightherd", "--help"]

FROM nvidia/cuda:${CUDA_VERSION}-devel-ubuntu24.04 AS cuda-wheels
ARG LLAMA_VERSION LLAMA_CMAKE
# A100; A10G, RTX 30; L4, L40S, RTX 40; H100, H200. Fewer compile in less time.
ARG CUDA_ARCHITECTURES="80;86;89;90"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-dev python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /venv
# The stubs stand in for the driver, which only the nodes have.
RUN CXXFLAGS=-fno-dse LIBRARY_PATH=/usr/local/cuda/lib64/stubs \
    CMAKE_ARGS="-DGGML_CUDA=on -DGGML_NATIVE=off -DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES} ${LLAMA_CMAKE}" \
    /venv/bin/pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python -w /wheels \
    "llama-cpp-python==${LLAMA_VERSION}"

FROM nvidia/cuda:${CUDA_VERSION}-runtime-ubuntu24.04 AS cuda
ARG RAY_VERSION EXTRAS
# Ubuntu's image has a user of its own with the id 1000.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 procps python3 python3-venv wget \
    && rm -rf /var/lib/apt/lists/* \
    && userdel --remove ubuntu \
    && useradd --create-home --uid 1000 ray \
    && python3 -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY --from=cuda-wheels /wheels /wheels
COPY pyproject.toml README.md LICENSE /src/
COPY pipeline /src/pipeline
RUN pip install --no-cache-dir --find-links /wheels "/src[${EXTRAS}]" "ray[default]==${RAY_VERSION}"
USER 1000
WORKDIR /home/ray
CMD ["nightherd", "--help"]
