"""Checkpoints of every known kind, built from random ResNets whose own features are the truth."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(7))


class SourceFile(NamedTuple):
    """A checkpoint on disk and the networks that it was made of, by branch."""

    path: Path
    kind: str
    default_branch: str
    nets: dict[str, nn.Module]


def random_resnet(depth: int, seed: int) -> nn.Module:
    """torchvision's ResNet with nothing at its default: a wrong or missing tensor changes every later map."""
    generator = torch.Generator().manual_seed(seed)
    net = getattr(models, f"resnet{depth}")(num_classes=10)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.num_batches_tracked.fill_(seed + 3)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    return net.eval()


def torchvision_file(path: Path, depth: int = 18, edit: Callable[[dict], None] | None = None) -> Path:
    """A random ResNet's state dict, edited in place before it is saved."""
    state_dict = random_resnet(depth, 5).state_dict()
    if edit:
        edit(state_dict)
    torch.save(state_dict, path)
    return path


def stage_features(net: nn.Module, image: Tensor = IMAGE) -> list[Tensor]:
    """Outputs of layer1 ... layer4, caught by hooks on torchvision's own forward."""
    seen: list[Tensor] = []
    hooks = [
        getattr(net, f"layer{i}").register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
        for i in range(1, 5)
    ]
    with torch.no_grad():
        net(image)
    for hook in hooks:
        hook.remove()
    return seen


def _under(prefix: str, net: nn.Module, keep_fc: bool = False) -> dict[str, Tensor]:
    return {prefix + k: v.clone() for k, v in net.state_dict().items() if keep_fc or not k.startswith("fc.")}


def _slotcon_plugin(q: nn.Module, k: nn.Module) -> dict:
    from mmengine.logging import HistoryBuffer

    return {
        "meta": {"epoch": 1, "iter": 2, "cfg": "model = dict()"},
        "state_dict": {
            **_under("student.backbone.", q),
            "student.projector.layers.0.weight": torch.randn(4, 8, 1, 1),
            **_under("teacher.backbone.", k),
            "teacher.grouping.prototypes": torch.randn(3, 4),
            "center.value": torch.zeros(3),
            "teacher_steps": torch.tensor(2),
        },
        "message_hub": {"log_scalars": {"loss": HistoryBuffer([1.0, 2.0], [1, 1])}, "runtime_info": {"iter": 2}},
    }


def _slotcon(q: nn.Module, k: nn.Module) -> dict:
    return {
        "args": argparse.Namespace(arch="resnet", dim_out=4),
        "model": {
            **_under("module.encoder_q.", q),
            **_under("module.encoder_k.", k),
            "module.projector_q.mlp.0.weight": torch.randn(4, 8, 1, 1),
            "module.grouping_k.slot_embed.weight": torch.randn(3, 4),
            "module.center": torch.zeros(1, 3),
        },
        "epoch": 800,
    }


def _moco(q: nn.Module, k: nn.Module, head: str) -> dict:
    return {
        "epoch": 200,
        "arch": "resnet",
        "state_dict": {
            **_under("module.encoder_q.", q),
            f"module.encoder_q.{head}.weight": torch.randn(4, 8),
            **_under("module.encoder_k.", k),
            f"module.encoder_k.{head}.weight": torch.randn(4, 8),
            "module.queue": torch.randn(4, 16),
            "module.queue_ptr": torch.zeros(1, dtype=torch.long),
        },
    }


def _densecl_openselfsup(q: nn.Module, k: nn.Module) -> dict:
    return {
        "meta": {"time": "now"},
        "state_dict": {
            "queue": torch.randn(4, 16),
            "queue2": torch.randn(4, 16),
            **_under("encoder_q.0.", q),
            "encoder_q.1.mlp.0.weight": torch.randn(4, 8),
            **_under("encoder_k.0.", k),
            "encoder_k.1.mlp.0.weight": torch.randn(4, 8),
            **_under("backbone.", q),
        },
    }


def _densecl_mmselfsup(q: nn.Module, k: nn.Module) -> dict:
    return {
        "state_dict": {
            **_under("backbone.", q),
            "neck.mlp.0.weight": torch.randn(4, 8),
            **_under("encoder_k.module.0.", k),
            "encoder_k.module.1.mlp.0.weight": torch.randn(4, 8),
            "encoder_k.steps": torch.tensor(3),
            "queue2": torch.randn(4, 16),
        }
    }


def _pixpro(q: nn.Module, k: nn.Module) -> dict:
    return {
        "opt": argparse.Namespace(arch="resnet"),
        "model": {
            **_under("module.encoder.", q),
            "module.projector.linear1.weight": torch.randn(4, 8, 1, 1),
            **_under("module.encoder_k.", k),
            "module.projector_k.linear1.weight": torch.randn(4, 8, 1, 1),
            "module.value_transform.weight": torch.randn(4, 4, 1, 1),
        },
    }


class Recipe(NamedTuple):
    """How to make a file of one kind from a student's and a teacher's network."""

    kind: str
    branches: tuple[str, ...]  # the default first
    build: Callable[[nn.Module, nn.Module], dict]


RECIPES = {
    "slotcon_plugin": Recipe("slotcon_plugin", ("teacher", "student"), _slotcon_plugin),
    "slotcon": Recipe("slotcon", ("teacher", "student"), _slotcon),
    "moco_v1": Recipe("moco", ("student", "teacher"), lambda q, k: _moco(q, k, "fc")),
    "moco_v2": Recipe("moco", ("student", "teacher"), lambda q, k: _moco(q, k, "fc.0")),
    "densecl": Recipe("densecl", ("student", "teacher"), _densecl_openselfsup),
    "densecl_mmselfsup": Recipe("densecl", ("student", "teacher"), _densecl_mmselfsup),
    "densecl_extracted": Recipe(
        "unknown", ("backbone",), lambda q, k: {"state_dict": _under("", q), "author": "DenseCL"}
    ),
    "pixpro": Recipe("pixpro", ("student", "teacher"), _pixpro),
    "torchvision": Recipe("unknown", ("backbone",), lambda q, k: _under("", q, keep_fc=True)),
}


@pytest.fixture(scope="session")
def source_file(tmp_path_factory) -> Iterator[Callable[[str, int], SourceFile]]:
    """(name in RECIPES, depth) -> file, made once a session and removed at its end (up to 200 MB each)."""
    made: dict[tuple[str, int], SourceFile] = {}
    nets: dict[int, tuple[nn.Module, nn.Module]] = {}

    def make(name: str, depth: int) -> SourceFile:
        if (name, depth) not in made:
            if depth not in nets:
                nets[depth] = random_resnet(depth, 1), random_resnet(depth, 2)
            recipe = RECIPES[name]
            path = tmp_path_factory.mktemp("sources") / "checkpoint.bin"  # the name must not matter
            torch.save(recipe.build(*nets[depth]), path)
            by_branch = dict(zip(("student", "teacher"), nets[depth]))
            branches = {b: by_branch.get(b, nets[depth][0]) for b in recipe.branches}
            made[name, depth] = SourceFile(path, recipe.kind, recipe.branches[0], branches)
        return made[name, depth]

    yield make
    for source in made.values():
        source.path.unlink()


@pytest.fixture(autouse=True)
def _no_big_leavings(tmp_path) -> Iterator[None]:
    """Converted files are up to 180 MB, and pytest keeps the folders of three runs."""
    yield
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.unlink()
