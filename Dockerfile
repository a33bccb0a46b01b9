# The environment that the tests run in: PyTorch with CUDA, the plugin, mmdet, mmsegmentation, detectron2.
#
#     docker build -t slotcon_plugin .                               # compiles mmcv, once: pip's cache is kept
#     docker build -t slotcon_plugin --build-arg WHAT=pretrain .     # what pretraining needs; nothing is compiled
#     docker run --gpus all --shm-size 8g -v $PWD/my_photos:/photos -v $PWD/runs:/runs slotcon_plugin \
#         python tools/train.py configs/pretrain/vader_small.py --photos /photos --work-dir /runs/mine
FROM python:3.11-slim-bookworm

ARG WHAT=all
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /slotcon_plugin
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip bash tools/setup_env.sh $WHAT
ENV PATH=/slotcon_plugin/.venv/bin:$PATH
