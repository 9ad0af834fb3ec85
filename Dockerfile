# syntax=docker/dockerfile:1.7
# The project's image, for MLflow's server, Ray's pods and jobs alike:
#
#   docker build --target cpu --tag bayling:0.1.0-cpu .
#   docker build --target gpu --tag bayling:0.1.0-gpu .
#
# What is heavy and seldom changes comes first: torch, then all other packages, then the project,
# each a layer of its own. Both targets have the same Python, as the pods of one Ray cluster must.

ARG UBUNTU=ubuntu:noble-20251013
# CUDA 13.0 is what torch's wheels are built with; DeepSpeed refuses to build with another.
ARG CUDA=nvidia/cuda:13.0.2-devel-ubuntu24.04

FROM ${CUDA} AS cuda

FROM ${UBUNTU} AS base
ENV LANG=C.UTF-8 \
    PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# gcc and Python's headers stay: triton compiles its launchers with them while a program runs.
# libaio is what offload to NVMe reads and writes with. wget is for KubeRay's own probes, venv for
# Ray's environments of a job.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
      ca-certificates gcc libaio-dev libc6-dev libgomp1 python3.12 python3.12-dev python3.12-venv \
      tini wget \
 && rm -rf /var/lib/apt/lists/*
# The id 1000 is taken by a user of the base image.
RUN userdel --remove ubuntu \
 && useradd --uid 1000 --user-group --create-home --shell /bin/bash bayling \
 && python3.12 -m venv /opt/venv
COPY constraints.txt constraints-s3.txt /opt/bayling/

# ---- torch ---------------------------------------------------------------------------------------
# Some package indexes give torch with several gigabytes of CUDA by default. The address of PyTorch's
# index of CPU wheels saves them: --build-arg PIP_EXTRA_INDEX_URL=…
FROM base AS torch-cpu
ARG PIP_EXTRA_INDEX_URL=
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /opt/bayling/constraints.txt torch

FROM base AS torch-gpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /opt/bayling/constraints.txt torch

# ---- DeepSpeed with its ops, and the project, as wheels ------------------------------------------
# DeepSpeed compiles for the CPU that it is built on. This compiler makes code for any x86-64 since
# 2013 instead (AVX2), whatever machine builds the image.
FROM scratch AS compiler
COPY --chmod=755 <<'SCRIPT' /portable-g++
#!/bin/bash
exec g++ "${@//-march=native/-march=x86-64-v3}" -U__AVX512__ -D__AVX256__
SCRIPT

FROM torch-cpu AS wheels-cpu
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
COPY --from=compiler /portable-g++ /usr/local/bin/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /opt/bayling/constraints.txt ninja py-cpuinfo setuptools \
 && CXX=portable-g++ DS_ACCELERATOR=cpu DS_BUILD_OPS=0 DS_BUILD_SHM_COMM=1 DS_BUILD_CPU_ADAM=1 \
    pip wheel --constraint /opt/bayling/constraints.txt --no-build-isolation --no-deps \
      --no-binary deepspeed --wheel-dir /wheels deepspeed

FROM torch-gpu AS wheels-gpu
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
COPY --from=cuda /usr/local/cuda-13.0 /usr/local/cuda
COPY --from=compiler /portable-g++ /usr/local/bin/
# No GPU is at hand while an image is built: the driver's library is the toolkit's stub.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /opt/bayling/constraints.txt ninja py-cpuinfo setuptools \
 && CXX=portable-g++ CUDA_HOME=/usr/local/cuda LIBRARY_PATH=/usr/local/cuda/lib64/stubs \
    TORCH_CUDA_ARCH_LIST="8.0;8.6;8.9;9.0;10.0;12.0" DS_ACCELERATOR=cuda \
    DS_BUILD_OPS=0 DS_BUILD_CPU_ADAM=1 DS_BUILD_AIO=1 DS_BUILD_PIN_MEMORY=1 \
    pip wheel --constraint /opt/bayling/constraints.txt --no-build-isolation --no-deps \
      --no-binary deepspeed --wheel-dir /wheels deepspeed

FROM base AS project
COPY pyproject.toml README.md LICENSE /src/
COPY platform/bayling /src/platform/bayling
COPY conf /src/conf
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /opt/bayling/constraints.txt hatchling \
 && pip wheel --no-build-isolation --no-deps --wheel-dir /wheels /src

# What pyproject.toml asks for, without the project: a list that changes less often than the code.
FROM base AS requirements
COPY pyproject.toml /src/
COPY --chmod=755 <<'SCRIPT' /usr/local/bin/requirements
#!/opt/venv/bin/python
import sys
import tomllib

project = tomllib.load(open("/src/pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
asked = [line for extra in sys.argv[1:] for line in extras[extra]]
print("\n".join(project["dependencies"] + asked))
SCRIPT
RUN requirements stages kubernetes server tracing > /cpu.txt \
 && requirements stages kubernetes server tracing gpu > /gpu.txt

# ---- the targets ---------------------------------------------------------------------------------
FROM torch-cpu AS cpu
ENV DS_ACCELERATOR=cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheels-cpu,source=/wheels,target=/wheels \
    --mount=type=bind,from=requirements,source=/cpu.txt,target=/requirements.txt \
    pip install --constraint /opt/bayling/constraints.txt --requirement /requirements.txt \
      /wheels/deepspeed-*.whl
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /opt/bayling/constraints-s3.txt --target /opt/s3 boto3
RUN --mount=type=bind,from=project,source=/wheels,target=/wheels \
    pip install --no-deps /wheels/bayling_platform-*.whl
COPY jobs /opt/bayling/jobs
WORKDIR /home/bayling
USER 1000:1000
ENTRYPOINT ["tini", "--"]
CMD ["bayling", "--help"]

FROM torch-gpu AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheels-gpu,source=/wheels,target=/wheels \
    --mount=type=bind,from=requirements,source=/gpu.txt,target=/requirements.txt \
    pip install --constraint /opt/bayling/constraints.txt --requirement /requirements.txt \
      /wheels/deepspeed-*.whl
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /opt/bayling/constraints-s3.txt --target /opt/s3 boto3
RUN --mount=type=bind,from=project,source=/wheels,target=/wheels \
    pip install --no-deps /wheels/bayling_platform-*.whl
COPY jobs /opt/bayling/jobs
WORKDIR /home/bayling
USER 1000:1000
ENTRYPOINT ["tini", "--"]
CMD ["bayling", "--help"]
