"""What four gloo ranks really send in a step, against the formulas of docs/benchmarks.md, "Many GPUs"."""

import sys
from collections import Counter
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import SlotCon, VADeR

WORLD, IMAGES, SIDE = 4, 2, 64
PROTOTYPES, DIM, POSITIONS, PAIRS = 8, 16, (SIDE // 32) ** 2, 5


def build(method):
    torch.manual_seed(0)
    backbone = {"type": "TorchvisionResNet", "depth": 18}
    if method == "vader":
        return VADeR(backbone, {"fpn_channels": 8, "channels": DIM}, num_pairs=PAIRS, queue_size=1000)
    head = {"hidden_channels": 32}
    return SlotCon(backbone, head | {"out_channels": DIM}, head, {"num_prototypes": PROTOTYPES})


def step(method):
    """One step of this rank -> bytes of the gradients, and how often which collective was given how many bytes."""
    model, seen, gradients = build(method), Counter(), [0]
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)

    def count_bucket(_, bucket):
        gradients[0] += bucket.buffer().nbytes
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    wrapped.register_comm_hook(None, count_bucket)  # DDP's own collectives are not Python's
    reduce, gather = dist.all_reduce, dist.all_gather

    def all_reduce(tensor, *args, **kwargs):
        seen["reduce", tensor.nbytes] += 1
        return reduce(tensor, *args, **kwargs)

    def all_gather(into, tensor, *args, **kwargs):
        seen["gather", tensor.nbytes] += 1
        return gather(into, tensor, *args, **kwargs)

    torch.manual_seed(dist.get_rank())
    boxes = torch.tensor([[[0.0, 0, 80, 80], [20, 10, 100, 90]]] * IMAGES)
    views = tuple(torch.randn(IMAGES, 3, SIDE, SIDE) for _ in range(2))
    with mock.patch.multiple(dist, all_reduce=all_reduce, all_gather=all_gather):
        losses = wrapped(TwoViewBatch(views, boxes, boxes[..., 0] > 0, torch.arange(IMAGES)), mode="loss")
        model.parse_losses(losses)[0].backward()
    return gradients[0], seen


def expected(method):
    """The table's rows in bytes that a rank gives; here SyncBN sends sums and squares one after the other."""
    model, seen = build(method), Counter()
    views = {"slotcon": (2, 2), "vader": (1, 1)}[method]  # of the student and of the teacher
    for branch, count in zip((model.student, model.teacher), views):
        for layer in branch.modules():
            if isinstance(layer, _BatchNorm):
                times = count * (2 if branch is model.student else 1)  # forward, backward
                seen["reduce", 4 * (layer.num_features + 1)] += times
                seen["reduce", 4 * layer.num_features] += times
    if method == "slotcon":
        slots = IMAGES * min(PROTOTYPES, POSITIONS)
        seen["gather", slots * 4 * DIM] += 2
        seen["gather", slots] += 2
        seen["reduce", 4] += 2  # number of queries
        seen["reduce", 4 * PROTOTYPES] += 1
    else:
        seen["gather", IMAGES * PAIRS * 4 * DIM] += 1
        seen["gather", IMAGES * PAIRS * 8] += 1
    return 4 * sum(p.numel() for p in model.student.parameters()), seen


@pytest.mark.slow
@pytest.mark.parametrize("method", ["slotcon", "vader"])
def test_four_ranks_send_what_the_formulas_say(method, run_ranks, tmp_path):
    run_ranks(*([__file__, method, rank, tmp_path] for rank in range(WORLD)))
    gradients, seen = expected(method)
    for rank in range(WORLD):
        sent = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert (sent["gradients"], Counter(dict(sent["seen"]))) == (gradients, seen)


if __name__ == "__main__":
    torch.set_num_threads(1)
    method, rank, folder = sys.argv[1:]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=int(rank), world_size=WORLD)
    sum_of_gradients, calls = step(method)
    torch.save({"gradients": sum_of_gradients, "seen": list(calls.items())}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
