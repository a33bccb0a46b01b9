"""DenseCL against loops written from the paper's equations, and what must hold around it."""

import io

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper

from slotcon_plugin.convert import read_checkpoint
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import DenseCL
from slotcon_plugin.models.pretrainers.densecl import _distinct_share

HEAD = dict(hidden_channels=16, out_channels=8, num_layers=2, norm=None, activation="ReLU")


def make_densecl(**options):
    torch.manual_seed(0)
    settings = dict(
        backbone=dict(type="slotcon_plugin.TorchvisionResNet", depth=18, zero_init_residual=False),
        projector=HEAD,
        dense_projector=HEAD,
        queue_size=10,
    )
    return DenseCL(**{**settings, **options})


def batch(size=3, first=0, side=64):
    return TwoViewBatch(
        views=tuple(torch.randn(size, 3, side, side) for _ in range(2)),
        crop_boxes=torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 60]]).expand(size, 2, 4),  # they share nothing
        flipped=torch.rand(size, 2) < 0.5,
        sample_index=torch.arange(first, first + size),
    )


@pytest.fixture
def densecl():
    return make_densecl()


def mlp(head, x):
    """The paper's heads: linear, ReLU, linear, at one vector."""
    (first, _, last) = head.layers
    hidden = (first.weight.flatten(1) @ x + first.bias).clamp(min=0)
    return last.weight.flatten(1) @ hidden + last.bias


def info_nce(query, positive, negatives, tau):
    terms = [(F.cosine_similarity(query, key, dim=0) / tau).exp() for key in (positive, *negatives)]
    return -(terms[0] / sum(terms)).log()


def naive_loss(model, data):
    """Equations 1, 2 and 4 from the backbones' maps on, one image and one position at a time."""
    tau, image_loss, dense_loss, image_keys, dense_keys = model.temperature, [], [], [], []
    for b in range(len(data.sample_index)):
        first, second = (
            parts["backbone"](view)[-1][b].flatten(1).T  # (h*w, C)
            for parts, view in zip((model.student, model.teacher), data.views)
        )
        others = [i for i, image in enumerate(model.queue.image_ids) if image not in (-1, data.sample_index[b])]
        key = mlp(model.teacher["projector"], second.mean(dim=0))
        query = mlp(model.student["projector"], first.mean(dim=0))
        image_loss.append(info_nce(query, key, model.queue.keys[others], tau))
        image_keys.append(F.normalize(key, dim=0))

        keys = [mlp(model.teacher["dense_projector"], place) for place in second]
        for place in first:
            match = max(range(len(second)), key=lambda m: F.cosine_similarity(place, second[m], dim=0))
            query = mlp(model.student["dense_projector"], place)
            dense_loss.append(info_nce(query, keys[match], model.dense_queue.keys[others], tau))
        dense_keys.append(F.normalize(torch.stack(keys).mean(dim=0), dim=0))
    return tuple(torch.stack(parts) for parts in (image_loss, dense_loss, image_keys, dense_keys))


def filled(model):
    """With seven keys of five images in either queue, some of images 0, 1 and 2."""
    for queue in (model.queue, model.dense_queue):
        queue.enqueue(F.normalize(torch.randn(7, 8), dim=1), torch.arange(7) % 5)
    return model


def test_losses_and_queues_equal_loops():
    model = filled(make_densecl(dense_loss_weight=0.3, temperature=1.0).eval())  # BatchNorm statistics stay
    for p in model.teacher.parameters():
        p.data.mul_(1.1)
    data = batch()
    with torch.no_grad():
        image_loss, dense_loss, image_keys, dense_keys = naive_loss(model, data)
    out = model(data, mode="loss")
    assert len(dense_loss) == 3 * 4
    assert out["loss_image"].item() == pytest.approx(0.7 * image_loss.mean().item(), rel=1e-5)
    assert out["loss_dense"].item() == pytest.approx(0.3 * dense_loss.mean().item(), rel=1e-5)
    assert min(image_loss.mean(), dense_loss.mean()) > 0.5
    for queue, keys in ((model.queue, image_keys), (model.dense_queue, dense_keys)):
        assert torch.allclose(queue.keys[7:], keys, atol=1e-5)
        assert queue.image_ids[7:].tolist() == [0, 1, 2]
        assert queue.position.item() == 0


def test_gradient_reaches_every_part_of_the_student_and_none_of_the_teacher(densecl):
    filled(densecl)
    losses = densecl(batch(first=7), mode="loss")
    densecl.parse_losses(losses)[0].backward()
    for name, parameter in densecl.student.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None and not p.requires_grad for p in densecl.teacher.parameters())


def test_each_loss_trains_its_own_head(densecl):
    filled(densecl)
    densecl(batch(first=7), mode="loss")["loss_dense"].backward()
    assert all(p.grad is None for p in densecl.student["projector"].parameters())
    assert densecl.student["dense_projector"].layers[0].weight.grad.abs().sum() > 0


def test_figures_of_views_that_are_the_same(densecl):
    """Each position finds itself, whose key is its own: nothing is nearer, and every position is taken."""
    filled(densecl.eval())
    data = batch(first=7)
    figures = densecl(data._replace(views=(data.views[0], data.views[0])), mode="loss")
    for name in ("contrast_accuracy", "dense_contrast_accuracy", "matched_share"):
        assert figures[name].item() == 1.0, name
    for name in ("positive_similarity", "dense_positive_similarity"):
        assert figures[name].item() == pytest.approx(1.0, abs=1e-5)
    assert figures["queue_fill"].item() == pytest.approx(0.7), "counted before writing"
    assert densecl.monitor["features"].shape == (3 * 4, 8)


def test_share_of_matched_positions_by_hand():
    """Of four positions the first image's all choose one, the second image's choose three."""
    assert _distinct_share(torch.tensor([[2, 2, 2, 2], [0, 1, 3, 1]]), 4).item() == (1 + 3) / 8


def test_a_resumed_run_repeats_the_run_bit_for_bit(densecl):
    """Weights, teacher and both queues from a file; the queues wrap around meanwhile."""
    steps = [batch(first=3 * i) for i in range(5)]

    def train(model, optimizer, data):
        optimizer.update_params(model.parse_losses(model(data, mode="loss"))[0])
        model.update_teacher()

    optimizer = OptimWrapper(torch.optim.SGD(densecl.student.parameters(), lr=0.01))
    for data in steps[:3]:
        train(densecl, optimizer, data)
    file = io.BytesIO()
    torch.save(densecl.state_dict(), file)
    file.seek(0)
    resumed = make_densecl()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    again = OptimWrapper(torch.optim.SGD(resumed.student.parameters(), lr=0.01))
    for data in steps[3:]:
        train(densecl, optimizer, data)
        train(resumed, again, data)
    assert densecl.queue.position.item() == densecl.dense_queue.position.item() == 5
    for name, value in densecl.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_student_is_what_converters_take(densecl, tmp_path):
    for p in densecl.teacher.parameters():
        p.data.mul_(2)
    checkpoint = {"state_dict": densecl.state_dict()}
    densecl.declare(checkpoint)
    torch.save(checkpoint, tmp_path / "iter_1.pth")
    canonical = read_checkpoint(tmp_path / "iter_1.pth")
    assert (canonical.meta["method"], canonical.meta["branch"], canonical.decoders) == ("densecl", "student", {})
    for name, value in densecl.student["backbone"].state_dict().items():
        assert torch.equal(canonical.state_dict[name], value), name


def test_embedding_is_the_dense_projection(densecl):
    images = torch.randn(2, 3, 64, 96)
    assert densecl.embed(images).shape == (2, 8, 2, 3)
    densecl.require("embeds_pixels", "this")
    with pytest.raises(UserError, match="DenseCL has none"):
        densecl.require("groups", "this")


def test_what_cannot_work_is_refused():
    for option, value in (("temperature", 0), ("dense_loss_weight", 1.5), ("queue_size", 0)):
        with pytest.raises(UserError):
            make_densecl(**{option: value})
    with pytest.raises(UserError, match=r"model\.projector\.dims"):
        make_densecl(projector=dict(HEAD, dims=2))
