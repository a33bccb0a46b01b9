"""Options of a pretrainer change how it is computed, not what."""

import copy
from functools import partialmethod

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn
from torch._dynamo.utils import counters

from slotcon_plugin.engine.runner import compute_activations_twice
from slotcon_plugin.errors import UserError
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models import SlotCon
from slotcon_plugin.models.build import compile_parts
from slotcon_plugin.models.heads import MLPHead
from slotcon_plugin.registry import MODELS


@MODELS.register_module(force=True)
class TwoConvBackbone(nn.Sequential):
    """Small enough to be compiled in a test."""

    out_channels, strides = (8,), (8,)

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 5, 4, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))

    def forward(self, images):
        return (super().forward(images),)


def build(**changes) -> SlotCon:
    torch.manual_seed(0)
    return SlotCon(
        **{
            "backbone": {"type": "TorchvisionResNet", "depth": 18},
            "projector": {"hidden_channels": 32, "out_channels": 16},
            "predictor": {"hidden_channels": 32},
            "grouping": {"num_prototypes": 8},
            **changes,
        }
    ).train()


def losses_and_gradients(model: nn.Module, side: int = 64):
    generator = torch.Generator().manual_seed(1)
    views = tuple(torch.randn(8, 3, side, side, generator=generator) for _ in range(2))
    crop_boxes = torch.tensor([[[0.0, 0, 100, 80], [20, 10, 90, 100]]]).repeat(8, 1, 1)
    flipped = torch.tensor([[False, True]]).repeat(8, 1)
    losses = model(TwoViewBatch(views, crop_boxes, flipped, torch.arange(8)), mode="loss")
    model.parse_losses(losses)[0].backward()
    gradients = {name: p.grad for name, p in model.student.named_parameters()}
    return torch.stack([losses["loss_group"], losses["loss_slot"]]).detach(), gradients


def assert_same(got, want):
    torch.testing.assert_close(got[0], want[0], rtol=1e-3, atol=1e-4)
    assert got[1].keys() == want[1].keys()
    for name, gradient in want[1].items():
        error = (got[1][name] - gradient).norm()
        assert error <= 2e-2 * gradient.norm() + 1e-4, name


@MODELS.register_module(force=True)
class BackboneOfMMEngines(BaseModule):
    out_channels, strides = (8,), (8,)

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.conv = nn.Conv2d(3, 8, 8, 8)

    def forward(self, images):
        return (self.conv(images),)


def test_a_backbone_of_mmengines_begins_as_it_says():
    model = build(backbone={"type": "BackboneOfMMEngines", "init_cfg": dict(type="Constant", val=0.5, layer="Conv2d")})
    for branch in (model.student, model.teacher):
        assert (branch["backbone"].conv.weight == 0.5).all()


def test_channels_last_computes_the_same():
    fast = build(channels_last=True)
    weight = fast.student["backbone"].layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(losses_and_gradients(fast), losses_and_gradients(build(channels_last=False)))


@pytest.mark.parametrize("parts", [["student.backbone.layer1", "student.backbone.layer2"], "student.backbone"])
def test_gradient_checkpointing_computes_the_same(parts):
    """`activation_checkpointing=[...]` of a config calls this function."""
    lean = build()
    compute_activations_twice(lean, parts)
    plain = build()
    assert_same(losses_and_gradients(lean), losses_and_gradients(plain))
    for name, value in plain.named_buffers():  # statistics of BatchNorm are not taken twice
        assert torch.equal(lean.get_buffer(name), value), name


@pytest.mark.slow
def test_gradient_checkpointing_goes_with_compilation(monkeypatch):
    """The parts themselves stay as they are."""
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    torch.compiler.reset()
    small = {"type": "TwoConvBackbone"}
    lean = build(backbone=small, compile=True)
    del lean.student["projector"]._compiled_call_impl, lean.teacher["projector"]._compiled_call_impl
    compute_activations_twice(lean, ["student.backbone.1"])
    before = counters["stats"]["unique_graphs"]
    assert_same(losses_and_gradients(lean), losses_and_gradients(build(backbone=small)))
    assert counters["stats"]["unique_graphs"] > before


@pytest.mark.slow
def test_compiled_model_computes_the_same_and_keeps_its_keys():
    small = {"type": "TwoConvBackbone"}
    plain, fast = build(backbone=small), build(backbone=small, compile=True)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    assert_same(losses_and_gradients(fast), losses_and_gradients(plain))
    copy.deepcopy(plain).load_state_dict(fast.state_dict())


@pytest.mark.parametrize(("option", "mode"), [(True, "default"), ("reduce-overhead", "reduce-overhead")])
def test_mode_of_compilation_reaches_every_dense_part(option, mode, monkeypatch):
    """And CUDA graphs are told that a step begins: before it, each time."""
    compiled, steps = [], []
    monkeypatch.setattr(nn.Module, "compile", lambda part, **options: compiled.append((part, options)))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(len(steps)))
    model = build(backbone={"type": "TwoConvBackbone"}, compile=option)
    parts = [branch[name] for branch in (model.student, model.teacher) for name in ("backbone", "projector")]
    assert compiled == [(part, {"mode": mode, "dynamic": False}) for part in parts]
    for _ in range(2):
        losses_and_gradients(model)
    assert steps == [0, 1]
    model(torch.zeros(1, 3, 64, 64))
    assert steps == [0, 1], "features are not a step"


def test_what_is_compiled_is_so_in_training_alone(monkeypatch):
    """Pictures and probes bring maps of all sizes, and two graphs after each other without a step between them."""
    calls = []

    def pretend(part, **options):
        part._compiled_call_impl = lambda *args: calls.append(part) or part._call_impl(*args)

    monkeypatch.setattr(nn.Module, "compile", pretend)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    model = build(backbone={"type": "TwoConvBackbone"}, compile="reduce-overhead").eval()
    model.group(torch.rand(1, 3, 64, 64))
    assert not calls
    losses_and_gradients(model.train())
    assert len(calls) == 2 * 2 * 2  # views, branches, parts


def test_parts_of_one_class_are_all_compiled(monkeypatch):
    """However many: torch gives up on code that it has compiled as often as its limit says."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def compile_by_it(part, mode, **options):
        part._compiled_call_impl = torch.compile(part._call_impl, backend=backend, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_by_it)
    parts = [MLPHead(size, 4, 3) for size in range(3, 9)]
    with torch._dynamo.config.patch(cache_size_limit=2):  # monkeypatch would leave torch without a limit
        compile_parts(parts, "default")
        for size, part in enumerate(parts, 3):
            part(torch.ones(2, size, 4, 4))
    assert len(graphs) == len(parts)


def test_a_mode_that_torch_does_not_know_is_refused():
    with pytest.raises(UserError, match=r"compile must be True, False or a mode.*'reduce-overhead'.*; got 'fast'"):
        build(compile="fast")


@pytest.mark.parametrize("package", ["mmdet", "mmseg"])
def test_backbones_of_other_packages_come_through_the_registry(package):
    pytest.importorskip(package)
    model = build(backbone={"type": f"{package}.ResNet", "depth": 18})
    losses, gradients = losses_and_gradients(model)
    assert torch.isfinite(losses).all()
    backbone = model.student["backbone"]
    assert type(backbone).__module__.startswith(package)
    assert backbone.layer1[0].bn1.training  # mmdet's would go by statistics that nothing has set
    assert build(backbone={"type": f"{package}.ResNet", "depth": 18, "norm_eval": True}).student["backbone"].norm_eval
    assert gradients["backbone.layer4.1.bn2.weight"].abs().sum() > 0  # which starts at 0, as these say of themselves
