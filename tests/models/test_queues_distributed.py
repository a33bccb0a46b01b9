"""Methods with queues: two processes with half the batch each give what one process with all of it gives."""

import pytest
import torch
import torch.distributed as dist

WORKER = "import runpy, sys; runpy.run_path(sys.argv[1])['work'](int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])"
STEPS, BATCH, SIDE = 2, 4, 64
PIXELS = (SIDE // 4) ** 2


def build(method):
    from slotcon_plugin.models import DenseCL, VADeR

    backbone = dict(type="slotcon_plugin.TorchvisionResNet", depth=18, zero_init_residual=False)
    if method == "vader":
        # Every pixel is a pair, so that which pixels are drawn does not matter.
        return VADeR(
            backbone,
            dict(fpn_channels=8, channels=8),
            num_pairs=PIXELS,
            queue_size=3 * BATCH * PIXELS,
            temperature=1.0,
        )
    head = dict(hidden_channels=8, out_channels=8, num_layers=2, norm=None, activation="ReLU")
    return DenseCL(backbone, head, head, queue_size=3 * BATCH, temperature=1.0)


def work(rank, ranks, folder, method):
    """Two steps on this rank's share, then its loss, gradient and queues go to a file."""
    from slotcon_plugin.geometry import TwoViewBatch
    from slotcon_plugin.models.distributed import all_reduce_sum

    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    model = build(method)
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0]] * 2] * BATCH)
    mine = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    for step in range(STEPS):
        torch.manual_seed(step)  # drawing pairs has taken as many random numbers as there were photos
        views = [torch.randn(BATCH, 3, SIDE, SIDE) for _ in range(2)]
        model.zero_grad()
        losses = model(
            TwoViewBatch(
                (views[0][mine], views[1][mine]),
                boxes[mine],
                torch.zeros(BATCH, 2, dtype=torch.bool)[mine],
                torch.arange(BATCH)[mine] + 2 * step,  # half of the photos come back in the second step
            ),
            mode="loss",
        )
        loss, _ = model.parse_losses(losses)
        loss.backward()
    parts = [loss, *(p.grad for p in model.student.parameters())]
    result = {
        "means": [part / ranks for part in all_reduce_sum(*parts)],
        "queues": {name: value for name, value in model.state_dict().items() if "queue" in name},
    }
    torch.save(result, f"{folder}/{ranks}_{rank}.pt")


def run(run_ranks, ranks, folder, method):
    run_ranks(*(["-c", WORKER, __file__, rank, ranks, folder, method] for rank in range(ranks)))
    return [torch.load(folder / f"{ranks}_{rank}.pt", weights_only=True) for rank in range(ranks)]


def farthest(ours, expected):
    """Largest distance from a row of one set to the nearest of the other: the order of drawing does not matter."""
    distance = torch.cdist(ours, expected, compute_mode="donot_use_mm_for_euclid_dist")
    return max(distance.amin(0).max().item(), distance.amin(1).max().item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "queues", "keys_an_image"), [("vader", ["queue"], PIXELS), ("densecl", ["queue", "dense_queue"], 1)]
)
def test_two_ranks_equal_one_process(run_ranks, tmp_path, method, queues, keys_an_image):
    (alone,), pair = (run(run_ranks, ranks, tmp_path, method) for ranks in (1, 2))
    assert len(alone["queues"]) == 3 * len(queues)
    for name, value in pair[0]["queues"].items():
        assert torch.equal(value, pair[1]["queues"][name]), f"{name} differs between the ranks"
    for queue in queues:
        ours, expected = (
            {part: result["queues"][f"{queue}.{part}"] for part in ("keys", "image_ids", "position")}
            for result in (pair[0], alone)
        )
        assert torch.equal(ours["image_ids"], expected["image_ids"])
        assert ours["position"] == expected["position"] == STEPS * BATCH * keys_an_image
        for image in range(STEPS * 2 + 2):
            rows, wanted = (part["keys"][part["image_ids"] == image] for part in (ours, expected))
            assert len(wanted) in (keys_an_image, 2 * keys_an_image)
            assert farthest(rows, wanted) < 1e-4
    assert alone["means"][0].item() > 1
    for ours, expected in zip(pair[0]["means"], alone["means"], strict=True):
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item() + 1e-7)
