import io
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper

from slotcon_plugin.data.crops import CropPairSampler
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import VADeR
from slotcon_plugin.models.pixel_pairs import sample_pairs


def make_vader(**options):
    torch.manual_seed(0)
    settings = dict(
        backbone=dict(type="slotcon_plugin.TorchvisionResNet", depth=18, zero_init_residual=False),
        decoder=dict(fpn_channels=16, channels=32),
        num_pairs=6,
        queue_size=40,
    )
    return VADeR(**{**settings, **options})


def batch(size=3, first=0, side=64):
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [16.0, 8.0, 64.0, 56.0]]).expand(size, 2, 4)
    return TwoViewBatch(
        views=tuple(torch.randn(size, 3, side, side) for _ in range(2)),
        crop_boxes=boxes,
        flipped=torch.rand(size, 2) < 0.5,
        sample_index=torch.arange(first, first + size),
    )


@pytest.fixture
def vader():
    return make_vader()


def naive_loss(model, data, decoupled=False, interpolation="bilinear"):
    """Every step of the method in loops, from the maps on: correspondence, reading, InfoNCE over the queue."""
    first = model.embed(data.views[0], "student")
    second = model.embed(data.views[1], "teacher")
    size = first.shape[-1]
    index = sample_pairs(data.crop_boxes, data.flipped, (size, size), model.num_pairs).index
    total, keys = 0.0, []
    for b in range(len(first)):
        (l1, t1, r1, b1), (l2, t2, r2, b2) = data.crop_boxes[b].tolist()
        flip1, flip2 = data.flipped[b].tolist()
        for i in index[b].tolist():
            u, v = (i % size + 0.5) / size, (i // size + 0.5) / size
            x, y = l1 + (1 - u if flip1 else u) * (r1 - l1), t1 + v * (b1 - t1)
            u, v = (x - l2) / (r2 - l2), (y - t2) / (b2 - t2)
            column, row = (1 - u if flip2 else u) * size - 0.5, v * size - 0.5
            column, row = min(max(column, 0), size - 1), min(max(row, 0), size - 1)
            if interpolation == "nearest":
                column, row = round(column), round(row)
            c, r = min(int(column), size - 2), min(int(row), size - 2)
            key = sum(
                second[b, :, r + dr, c + dc] * (1 - abs(row - r - dr)) * (1 - abs(column - c - dc))
                for dr in (0, 1)
                for dc in (0, 1)
            )
            key = F.normalize(key, dim=0)
            query = F.normalize(first[b, :, i // size, i % size], dim=0)
            scores = [query @ key]
            for row_of_queue, image in zip(model.queue.keys, model.queue.image_ids.tolist()):
                if image not in (-1, data.sample_index[b].item()):
                    scores.append(query @ row_of_queue)
            scores = torch.stack(scores) / model.temperature
            total = total + scores[1 if decoupled else 0 :].logsumexp(0) - scores[0]
            keys.append(key)
    return total / len(keys), torch.stack(keys)


@pytest.mark.parametrize("option", [{}, {"decoupled": True}, {"interpolation": "nearest"}])
def test_loss_and_queue_equal_a_loop(option):
    vader = make_vader(temperature=1.0, **option)  # at .07 random negatives are too far away to count
    vader.eval()  # BatchNorm statistics stay, so that both computations see the same maps
    vader.queue.enqueue(F.normalize(torch.randn(30, 32), dim=1), torch.arange(30) % 5)
    data = batch()
    # no place half-way between two pixels, where rounding says which one is the nearest
    data = data._replace(crop_boxes=data.crop_boxes + torch.tensor([[0.0], [0.7]]))
    torch.manual_seed(1)
    expected, keys = naive_loss(vader, data, **option)
    torch.manual_seed(1)
    out = vader(data, mode="loss")
    assert out["loss_pixel"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected.item() > 1
    # the batch's keys are written after the loss: rows 30..39, then 0..7
    written = torch.cat([vader.queue.keys[30:], vader.queue.keys[:8]])
    assert torch.allclose(written, keys, atol=1e-5)
    ids = torch.cat([vader.queue.image_ids[30:], vader.queue.image_ids[:8]])
    assert ids.tolist() == [image for image in (0, 1, 2) for _ in range(6)]
    assert out["queue_fill"].item() == pytest.approx(30 / 40)


def test_symmetric_loss_is_the_mean_of_both_directions():
    vader = make_vader(temperature=1.0, symmetric=True)
    vader.eval()
    vader.queue.enqueue(F.normalize(torch.randn(14, 32), dim=1), torch.arange(14) % 5)
    data = batch()
    other_way = data._replace(views=data.views[::-1], crop_boxes=data.crop_boxes.flip(1), flipped=data.flipped.flip(1))
    torch.manual_seed(1)
    expected, keys = zip(*[naive_loss(vader, way) for way in (data, other_way)])
    torch.manual_seed(1)
    out = vader(data, mode="loss")
    assert expected[0].item() != pytest.approx(expected[1].item(), rel=1e-4)
    assert out["loss_pixel"].item() == pytest.approx(sum(expected).item() / 2, rel=1e-5)
    # keys of both directions are queued, image after image
    written = torch.cat([vader.queue.keys[14:], vader.queue.keys[:10]])
    of_image = [torch.cat([way[6 * b : 6 * b + 6] for way in keys]) for b in range(3)]
    assert torch.allclose(written, torch.cat(of_image), atol=1e-5)
    assert vader.queue.image_ids[14:].tolist() == [0] * 12 + [1] * 12 + [2] * 2


def test_keys_of_the_same_image_are_no_negatives(vader):
    """An epoch shorter than the queue: with only its own keys in the queue, an image has no negatives and no loss."""
    data = batch(size=1, first=9)
    assert vader(data, mode="loss")["loss_pixel"].item() == 0.0
    assert vader(data, mode="loss")["loss_pixel"].item() == 0.0
    data = data._replace(sample_index=data.sample_index + 1)
    assert vader(data, mode="loss")["loss_pixel"].item() > 0.1


def test_gradient_reaches_every_part_of_the_student_and_none_of_the_teacher(vader):
    vader(batch(), mode="loss")
    vader(batch(first=3), mode="loss")["loss_pixel"].backward()
    for name, parameter in vader.student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None and not p.requires_grad for p in vader.teacher.parameters())


def test_identical_branches_and_views_are_perfectly_retrieved():
    model = make_vader().eval()
    data = batch()
    data = data._replace(
        views=(data.views[0], data.views[0]),
        crop_boxes=data.crop_boxes[:, :1].expand(-1, 2, -1),
        flipped=data.flipped[:, :1].expand(-1, 2),
    )
    figures = model(data, mode="loss")
    assert figures["pixel_accuracy"].item() == 1.0
    assert figures["positive_similarity"].item() == pytest.approx(1.0, abs=1e-5)


def test_momentum_is_constant_by_default_and_may_follow_a_schedule():
    """After the first of four steps: the cosine is an eighth of a turn along its way to 1, or a quarter."""
    eighth = 0.1 * (math.cos(math.pi / 4) + 1) / 2
    for schedule, moved in ((None, 0.001), ("constant", 0.1), ("cosine", eighth), ("rise_and_fall", 0.05)):
        options = {} if schedule is None else dict(teacher_momentum=0.9, teacher_momentum_schedule=schedule)
        model = make_vader(**options)
        model.total_steps = 4
        with torch.no_grad():
            model.student["decoder"].embed.bias.fill_(1.0)
        model.update_teacher()
        assert model.teacher["decoder"].embed.bias[0].item() == pytest.approx(moved, abs=1e-7), schedule
    with pytest.raises(ValueError, match="linear"):
        make_vader(teacher_momentum_schedule="linear")


def test_a_resumed_run_repeats_the_run_bit_for_bit(vader):
    """Weights, teacher and queue from a file; the queue wraps around meanwhile."""
    steps = [batch(first=3 * i) for i in range(5)]

    def train(model, optimizer, data, i):
        torch.manual_seed(i)
        optimizer.update_params(model(data, mode="loss")["loss_pixel"])
        model.update_teacher()

    optimizer = OptimWrapper(torch.optim.SGD(vader.student.parameters(), lr=0.01))
    for i in range(3):
        train(vader, optimizer, steps[i], i)
    file = io.BytesIO()
    torch.save(vader.state_dict(), file)
    file.seek(0)
    resumed = make_vader()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    again = OptimWrapper(torch.optim.SGD(resumed.student.parameters(), lr=0.01))
    for i in (3, 4):
        train(vader, optimizer, steps[i], i)
        train(resumed, again, steps[i], i)
    assert vader.queue.position.item() == 5 * 18 % 40
    for name, value in vader.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_what_cannot_work_is_refused():
    for option, value in (("temperature", 0), ("num_pairs", 0), ("interpolation", "bicubic"), ("queue_size", 0)):
        with pytest.raises(ValueError):
            make_vader(**{option: value})


@pytest.mark.parametrize(
    ("view_size", "pixels", "grid", "cure"),
    [
        (64, 6, 16, None),
        (62, 8, 16, None),  # more than is asked for, on a map that is rounded up
        (64, 6, 24, "min_overlap_pixels=6 train_dataloader.dataset.overlap_grid=16"),
        (96, 6, 16, "overlap_grid=24"),
        (64, 5, 16, "min_overlap_pixels=6"),
    ],
)
def test_crops_have_to_share_the_pixels_that_are_drawn(vader, view_size, pixels, grid, cure):
    assert vader.embed(torch.zeros(1, 3, view_size, view_size)).shape[-1] == -(-view_size // 4)
    data = SimpleNamespace(view_size=view_size, crops=CropPairSampler(min_overlap_pixels=pixels, overlap_grid=grid))
    if cure is None:
        vader.check_data(data)
    else:
        with pytest.raises(UserError, match=cure):
            vader.check_data(data)
