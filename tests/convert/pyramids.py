"""Checkpoints with a pyramid."""

import torch

from .conftest import random_resnet

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def fpn_keys(norm):
    leaves = ("weight", *(f"norm.{leaf}" for leaf in NORM)) if norm else ("weight", "bias")
    return {f"{part}.{i}.{leaf}" for part in ("lateral", "output") for i in range(4) for leaf in leaves}


def random_norm(name, width):
    values = {leaf: torch.rand(width) + 0.5 for leaf in NORM}
    return {f"{name}.{leaf}": value for leaf, value in values.items()} | {f"{name}.{NORM[-1]}": torch.tensor(7)}


def vader_file(path, depth=18, width=16, norm=False):
    net = random_resnet(depth, 6)
    channels = [64 * 2**i * (4 if depth >= 50 else 1) for i in range(4)]
    state_dict = {f"student.backbone.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    for level, c in enumerate(channels):
        lateral, output = (f"student.decoder.fpn.{part}.{level}" for part in ("lateral", "output"))
        state_dict[f"{lateral}.weight"] = torch.randn(width, c, 1, 1) / c**0.5
        state_dict[f"{output}.weight"] = torch.randn(width, width, 3, 3) / width
        for part in (lateral, output):
            own = random_norm(f"{part}.norm", width) if norm else {f"{part}.bias": torch.randn(width)}
            state_dict |= own
    torch.save({"state_dict": state_dict}, path)
    return path, state_dict
