"""Two processes with half the batch each give what one process with all of it gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

WORKER = "import runpy, sys; runpy.run_path(sys.argv[1])['work'](int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
STEPS, BATCH, SIDE = 2, 4, 64


def work(rank, ranks, folder):
    """Two steps on this rank's share, then its loss, gradient and queue go to a file.

    The views coincide and every pixel is a pair, so that which pixels are drawn does not matter.
    """
    from slotcon_plugin.geometry import TwoViewBatch
    from slotcon_plugin.models import VADeR
    from slotcon_plugin.models.distributed import all_reduce_sum

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    model = VADeR(
        backbone=dict(type="slotcon_plugin.TorchvisionResNet", depth=18, zero_init_residual=False),
        decoder=dict(fpn_channels=8, channels=8),
        num_pairs=(SIDE // 4) ** 2,
        queue_size=3 * BATCH * (SIDE // 4) ** 2,
        temperature=1.0,
    )
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0]] * 2] * BATCH)
    mine = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    for step in range(STEPS):
        torch.manual_seed(step)  # drawing pairs has taken as many random numbers as there were photos
        views = [torch.randn(BATCH, 3, SIDE, SIDE) for _ in range(2)]
        model.zero_grad()
        out = model(
            TwoViewBatch(
                (views[0][mine], views[1][mine]),
                boxes[mine],
                torch.zeros(BATCH, 2, dtype=torch.bool)[mine],
                torch.arange(BATCH)[mine] + 2 * step,  # half of the photos come back in the second step
            ),
            mode="loss",
        )
        out["loss_pixel"].backward()
    parts = [out["loss_pixel"], *(p.grad for p in model.student.parameters())]
    result = {
        "means": [part / ranks for part in all_reduce_sum(*parts)],
        "keys": model.queue.keys,
        "image_ids": model.queue.image_ids,
        "position": model.queue.position,
    }
    torch.save(result, f"{folder}/{ranks}_{rank}.pt")


def run(ranks, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).resolve().parents[2]
    commands = [[sys.executable, "-c", WORKER, __file__, str(rank), str(ranks), str(folder)] for rank in range(ranks)]
    processes = [subprocess.Popen(command, env=environment, cwd=root) for command in commands]
    assert [process.wait(timeout=300) for process in processes] == [0] * ranks
    return [torch.load(folder / f"{ranks}_{rank}.pt", weights_only=True) for rank in range(ranks)]


def farthest(ours, expected):
    """Largest distance from a row of one set to the nearest of the other: the order of drawing does not matter."""
    distance = torch.cdist(ours, expected, compute_mode="donot_use_mm_for_euclid_dist")
    return max(distance.amin(0).max().item(), distance.amin(1).max().item())


@pytest.mark.slow
def test_two_ranks_equal_one_process(tmp_path):
    (alone,), pair = run(1, tmp_path), run(2, tmp_path)
    for name in ("keys", "image_ids", "position"):
        assert torch.equal(pair[0][name], pair[1][name]), f"{name} differs between the ranks"
    assert torch.equal(pair[0]["image_ids"], alone["image_ids"])
    assert pair[0]["position"] == alone["position"] == STEPS * BATCH * (SIDE // 4) ** 2
    for image in range(STEPS * 2 + 2):
        ours, expected = (result["keys"][result["image_ids"] == image] for result in (pair[0], alone))
        assert len(expected) in (SIDE**2 // 16, SIDE**2 // 8)
        assert farthest(ours, expected) < 1e-4
    assert alone["means"][0].item() > 1
    for ours, expected in zip(pair[0]["means"], alone["means"], strict=True):
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item() + 1e-7)
