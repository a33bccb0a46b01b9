"""Killed at random moments again and again, a run of each method ends as one that was left alone, bit for bit."""

import os
import random
import signal
import time
import traceback

import pytest
import torch
from mmengine.runner import Runner

from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.engine import RunStampHook, allow_checkpoint_classes, claim_work_dir
from slotcon_plugin.engine.checkpoint import open_checkpoint

KILLS = 20
SMALL_HEAD = dict(type="MLPHead", hidden_channels=8, out_channels=8, num_layers=2)
COMMON = dict(data_preprocessor=dict(type="PlainPreprocessor"), backbone=dict(type="TinyBackbone"))
METHODS = {
    "SlotCon": {},
    "VADeR": dict(decoder=dict(type="FPNDecoder", fpn_channels=32, channels=32), num_pairs=4, queue_size=50),
    "DenseCL": dict(projector=SMALL_HEAD, dense_projector=SMALL_HEAD, queue_size=50),
}


@pytest.fixture
def start(tiny_config):
    """Go on with a run in a forked process, which has all imports already; the rest is what pretrain() does."""

    def fork(work_dir, method):
        if pid := os.fork():
            return pid
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            allow_checkpoint_classes()
            claim = claim_work_dir(work_dir, {"method": method}, resume=True)
            cfg = tiny_config(work_dir, epochs=25, hooks=[dict(type="SlotHealthHook", interval=5)])
            if METHODS[method]:
                cfg.model = {"type": method, **COMMON, **METHODS[method]}
            cfg.optim_wrapper.optimizer = dict(type="SGD", lr=0.05, momentum=0.9)
            cfg.default_hooks.checkpoint.update(type="SafeCheckpointHook", interval=2, max_keep_ckpts=1)
            if claim.checkpoint:
                cfg.resume, cfg.load_from = True, str(claim.checkpoint)
            runner = Runner.from_cfg(cfg)
            runner.register_hook(RunStampHook(claim.run))
            runner.train()
        except BaseException:
            work_dir.with_suffix(".traceback").write_text(traceback.format_exc())
            os._exit(1)
        finally:
            os._exit(0)

    return fork


def told(work_dir):
    path = work_dir.with_suffix(".traceback")
    return path.read_text() if path.exists() else "ended before it was killed: give it more epochs"


def ended(pid):
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def final_state(work_dir):
    newest, *others = numbered_checkpoints(work_dir)
    assert newest.name == "iter_100.pth" and not others
    checkpoint = open_checkpoint(newest)
    momenta = checkpoint["optimizer"]["state"]
    return {**checkpoint["state_dict"], **{f"momentum {i}": s["momentum_buffer"] for i, s in momenta.items()}}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_twenty_kills_change_nothing(tmp_path, start, method):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begun = time.monotonic()
    pid = start(whole, method)
    while not numbered_checkpoints(whole):
        assert not ended(pid), told(whole)
        time.sleep(0.01)
    to_first = time.monotonic() - begun
    assert os.waitpid(pid, 0)[1] == 0, told(whole)

    draw = random.Random(0)
    for _ in range(KILLS):
        before = numbered_checkpoints(killed)[:1]
        pid = start(killed, method)
        if draw.random() < 0.5:  # while it starts or takes its first steps
            time.sleep(to_first * draw.uniform(0, 0.5))
        else:  # when it has written a checkpoint, or begins the next one
            while numbered_checkpoints(killed)[:1] == before:
                assert not ended(pid), told(killed)
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL, told(killed)
    assert os.waitpid(start(killed, method), 0)[1] == 0, told(killed)

    want, got = final_state(whole), final_state(killed)
    assert want.keys() == got.keys() and len(want) > 20
    assert [name for name in want if not torch.equal(want[name], got[name])] == []
    assert not list(killed.rglob(".part-*"))
