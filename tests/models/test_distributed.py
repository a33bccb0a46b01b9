"""Two gloo ranks with half of the batch each give what one process with the whole batch gives."""

import sys
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from slotcon_plugin.engine.runner import compute_activations_twice
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import Sinkhorn, SlotCon, SlotConDecoder
from slotcon_plugin.models.distributed import AnyDeviceSyncBatchNorm, synchronise_batchnorm
from slotcon_plugin.models.grouping import Grouping
from slotcon_plugin.models.grouping_head import GroupingObjective

WORLD = 2


@pytest.fixture
def on_two_ranks(run_ranks, tmp_path):
    """``work(rank, *words)`` on each rank, in processes of their own -> what they returned."""

    def run(work, *words):
        run_ranks(*[[__file__, work.__name__, tmp_path, *words]] * WORLD)
        return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]

    return run


def build(kind=SlotCon, **settings) -> SlotCon | SlotConDecoder:
    torch.manual_seed(0)
    parts = dict(
        backbone={"type": "TorchvisionResNet", "depth": 18},
        projector={"hidden_channels": 32, "out_channels": 16},
        predictor={"hidden_channels": 32},
        grouping={"num_prototypes": 8},
    )
    model = kind(**parts | settings)
    for p in model.teacher.parameters():
        p.data.mul_(1.1)
    return model.train()


def batch():
    generator = torch.Generator().manual_seed(1)
    views = tuple(torch.randn(8, 3, 64, 64, generator=generator) for _ in range(2))
    low = torch.rand(8, 2, 2, generator=generator) * 30
    crop_boxes = torch.cat([low, low + 50 + torch.rand(8, 2, 2, generator=generator) * 40], dim=-1)
    return TwoViewBatch(views, crop_boxes, torch.rand(8, 2, generator=generator) < 0.5, torch.arange(8))


def loss_and_gradients(model, data):
    losses = model.loss(data)
    model.parse_losses(losses)[0].backward()
    return {
        "losses": torch.stack([value for name, value in losses.items() if "loss" in name]).detach(),
        "gradients": {name: p.grad for name, p in model.student.named_parameters() if p.requires_grad},
        "centers": {name: value for name, value in model.named_buffers() if name.endswith(".value")},
        "statistics": {name: b for name, b in model.named_buffers() if "running" in name},
    }


def slotcon():
    return build()


def with_pyramid():
    return build(SlotConDecoder, decoder={"channels": 12, "levels": ["p3", "p5"]})


def with_fcn():
    return build(SlotConDecoder, decoder={"type": "FCNDecoder", "channels": 12}, encoder_loss_weight=0.0)


def with_shared_out_targets():
    return build(center={"type": "Sinkhorn"}, mean_entropy_weight=0.5)


def with_activations_in_its_norms():
    return build(backbone={"type": "TimmBackbone", "name": "test_efficientnet"})


BUILDERS = (slotcon, with_pyramid, with_fcn, with_shared_out_targets, with_activations_in_its_norms)
MODELS = {function.__name__: function for function in BUILDERS}


def half_of_the_batch(rank, model):
    (first, second), *rest = batch()
    mine = slice(rank * 4, rank * 4 + 4)
    data = TwoViewBatch((first[mine], second[mine]), *(part[mine] for part in rest))
    return loss_and_gradients(MODELS[model](), data)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_ranks_are_one_process_with_both_halves(model, on_two_ranks):
    ranks = on_two_ranks(half_of_the_batch, model)
    want = loss_and_gradients(MODELS[model](), batch())
    torch.testing.assert_close((ranks[0]["losses"] + ranks[1]["losses"]) / 2, want["losses"], rtol=1e-4, atol=1e-5)
    assert ranks[0]["gradients"].keys() == want["gradients"].keys()
    for name, gradient in want["gradients"].items():
        got = (ranks[0]["gradients"][name] + ranks[1]["gradients"][name]) / 2  # what DDP leaves on each rank
        scale = gradient.abs().max().item()
        torch.testing.assert_close(
            got, gradient, rtol=1e-2, atol=max(2e-3 * scale, 1e-5), msg=lambda m, n=name: f"{n}: {m}"
        )
    for rank in ranks:
        for name, value in want["centers"].items():
            torch.testing.assert_close(rank["centers"][name], value, rtol=1e-4, atol=1e-6)
        for name, value in want["statistics"].items():
            torch.testing.assert_close(rank["statistics"][name], value, rtol=1e-3, atol=1e-4)


def step_of_two_views(rank, *checkpointed):
    """What DistributedDataParallel leaves after a second step."""
    model = slotcon()
    compute_activations_twice(model, checkpointed)
    parallel = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    (first, second), *rest = batch()
    mine = slice(rank * 4, rank * 4 + 4)
    for _ in range(2):
        model.zero_grad()
        losses = parallel(TwoViewBatch((first[mine], second[mine]), *(part[mine] for part in rest)), mode="loss")
        model.parse_losses(losses)[0].backward()
    return {name: p.grad for name, p in model.student.named_parameters()}


@pytest.mark.slow
def test_activations_that_are_computed_twice_go_with_several_processes(on_two_ranks):
    lean = on_two_ranks(step_of_two_views, "student.backbone.layer1", "student.backbone.layer2")[0]
    for name, gradient in on_two_ranks(step_of_two_views)[0].items():
        torch.testing.assert_close(lean[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def synchronised_gradients(rank, compiled):
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 3))
    layers = synchronise_batchnorm(layers).train()
    if compiled:
        layers.compile(backend="aot_eager")
    images = torch.randn(4, 3, 8, 8)[2 * rank : 2 * rank + 2].requires_grad_()
    layers(images).square().sum().backward()
    return [images.grad, *(p.grad for p in layers.parameters())]


@pytest.mark.slow
def test_gradients_reach_through_compiled_layers_to_other_ranks(on_two_ranks):
    for rank in zip(on_two_ranks(synchronised_gradients, True), on_two_ranks(synchronised_gradients, False)):
        for got, want in zip(*rank, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def groupings(images: slice):
    """Handmade groupings of four images, of which the last two have no prototype in common between the views."""
    generator = torch.Generator().manual_seed(2)
    slots = torch.randn(2, 4, 8, 16, generator=generator)
    present = torch.zeros(2, 4, 8, dtype=torch.bool)
    present[0, :, :4] = True
    present[1, :2, 2:6] = True
    present[1, 2:, 4:] = True
    empty, logits = torch.zeros(4, 1, 1, 1), torch.zeros(4, 8, 2, 3)  # six positions: at most six slots a photo
    return [
        Grouping(empty[images], logits[images], slots[i, images].clone().requires_grad_(), present[i, images])
        for i in range(2)
    ]


def contrast_of(images: slice, fixed: bool = False):
    model = build()
    student, teacher = groupings(images)
    with mock.patch.object(GroupingObjective, "_has_fixed_shapes", return_value=fixed):
        loss, num_queries = model.objective.contrast(student, teacher, model.student["predictor"])
    loss.backward()
    return {
        "loss": loss.detach(),
        "queries": num_queries,
        "slots": student.slots.grad,
        "predictor": {name: p.grad for name, p in model.student["predictor"].named_parameters()},
        "statistics": dict(model.student["predictor"].named_buffers()),
    }


def contrast_of_rank(rank):
    return contrast_of(slice(rank * 2, rank * 2 + 2))


def fixed_contrast_of_rank(rank):
    return contrast_of(slice(rank * 2, rank * 2 + 2), fixed=True)


@pytest.mark.slow
@pytest.mark.parametrize("work", [contrast_of_rank, fixed_contrast_of_rank])
def test_a_rank_without_queries_takes_part(work, on_two_ranks):
    ranks = on_two_ranks(work)
    want = contrast_of(slice(0, 4))
    assert [r["queries"].item() for r in ranks] == [4, 0]
    torch.testing.assert_close((ranks[0]["loss"] + ranks[1]["loss"]) / 2, want["loss"])
    got = torch.cat([r["slots"] for r in ranks]) / 2
    torch.testing.assert_close(got, want["slots"], rtol=1e-3, atol=1e-6)
    for name, gradient in want["predictor"].items():
        got = (ranks[0]["predictor"][name] + ranks[1]["predictor"][name]) / 2
        torch.testing.assert_close(got, gradient, rtol=1e-3, atol=1e-6)
    for name, value in want["statistics"].items():
        torch.testing.assert_close(ranks[1]["statistics"][name], value)


def synchronised_norm(rank):
    layer = AnyDeviceSyncBatchNorm(3)
    x = torch.arange(30.0).view(10, 3)[rank * 10 :]  # all rows on rank 0
    x.requires_grad_()
    out = layer(x)
    (out**3).sum().backward()
    return {"out": out.detach(), "grad": x.grad, "mean": layer.running_mean, "var": layer.running_var}


@pytest.mark.slow
def test_sync_batchnorm_with_an_empty_rank_equals_torchs(on_two_ranks):
    ranks = on_two_ranks(synchronised_norm)
    layer = torch.nn.BatchNorm1d(3).train()
    x = torch.arange(30.0).view(10, 3).requires_grad_()
    out = layer(x)
    (out**3).sum().backward()
    torch.testing.assert_close(ranks[0]["out"], out.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ranks[0]["grad"], x.grad, rtol=1e-3, atol=1e-4)
    assert ranks[1]["out"].shape == (0, 3)
    for rank in ranks:
        torch.testing.assert_close(rank["mean"], layer.running_mean)
        torch.testing.assert_close(rank["var"], layer.running_var)


def targets_of(images: slice):
    logits = torch.randn(4, 5, 3, 2, generator=torch.Generator().manual_seed(3))[images].clamp(-1, 1)
    return {str(window): Sinkhorn(window=window)(logits, 0.07) for window in (None, 1, 3)}


def targets_of_rank(rank):
    return targets_of(slice(rank * 2, rank * 2 + 2))


@pytest.mark.slow
def test_ranks_share_out_the_prototypes_of_each_place_together(on_two_ranks):
    ranks = on_two_ranks(targets_of_rank)
    for window, want in targets_of(slice(0, 4)).items():
        torch.testing.assert_close(torch.cat([rank[window] for rank in ranks]), want, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(targets_of(slice(0, 2))[window], want[:2], atol=1e-2), "no rank by itself"


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.save(globals()[sys.argv[1]](dist.get_rank(), *sys.argv[3:]), f"{sys.argv[2]}/{dist.get_rank()}.pt")
    dist.destroy_process_group()
