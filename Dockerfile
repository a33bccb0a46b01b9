# syntax=docker/dockerfile:1
# The environment that the tests run in: PyTorch with CUDA, the plugin, mmdet, mmsegmentation, detectron2.
#
#     docker build -t slotcon_plugin .                               # compiles mmcv, once: pip's cache is kept
#     docker build -t slotcon_plugin --build-arg WHAT=pretrain .     # what pretraining needs; nothing is compiled
#     docker run --gpus all --shm-size 8g -v $PWD/my_photos:/photos -v $PWD/runs:/runs slotcon_plugin \
#         slotcon pretrain /photos --out /runs/mine --method vader
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_CACHE_DIR=/var/cache/pip
ARG WHAT=all
WORKDIR /slotcon_plugin
# Only what decides the environment, so that other changes of the checkout leave it as it is.
COPY setup.py pyproject.toml ./
COPY requirements requirements
COPY tools/setup_env.sh tools/
COPY slotcon_plugin/__init__.py slotcon_plugin/registry.py slotcon_plugin/
RUN --mount=type=cache,target=/var/cache/pip bash tools/setup_env.sh "$WHAT"
COPY . .
ENV PATH=/slotcon_plugin/.venv/bin:$PATH
