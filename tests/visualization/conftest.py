"""A trained-model stand-in whose grouping is known: the colour of a place decides its prototype."""

import numpy as np
import pytest
import torch
from PIL import Image

from slotcon_plugin.models import BasePretrainer, Grouping, Method
from slotcon_plugin.models.grouping import present_prototypes

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


class ColourModel(torch.nn.Module):
    """Prototypes 0, 1, 2 are red, green and blue, prototype 3 is never chosen; a map of stride 8."""

    method = Method("colour", "Colour", groups=True)
    init, heads, shown_head = None, (), None
    require, show_head = BasePretrainer.require, BasePretrainer.show_head

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.data_preprocessor = torch.nn.Module()
        self.data_preprocessor.mean = torch.full((3, 1, 1), 0.5)
        self.data_preprocessor.std = torch.full((3, 1, 1), 0.25)
        self.teacher = torch.nn.ModuleDict({"grouping": torch.nn.Module()})
        self.teacher["grouping"].prototypes = torch.nn.Parameter(torch.eye(4)[:, :3] - torch.eye(4)[:, 3:])

    def branch(self, name):
        return self.teacher

    def prototypes(self, branch="teacher"):
        return self.teacher["grouping"].prototypes.detach()

    def group(self, images, branch="teacher"):
        z = torch.nn.functional.avg_pool2d(images * 0.25 + 0.5, 8)
        logits = torch.einsum("kd,bdhw->bkhw", self.teacher["grouping"].prototypes, z)
        assignment = (logits * 100).softmax(dim=1)
        slots = torch.einsum("bkhw,bdhw->bkd", assignment, z) / assignment.sum(dim=(2, 3)).clamp(min=1e-6)[..., None]
        return Grouping(z, logits, slots, present_prototypes(logits))


@pytest.fixture
def model():
    return ColourModel().eval()


@pytest.fixture
def halves():
    """Make a photo whose left part (a share of the width) is of one colour and the rest of another."""

    def make(path, left, right, share=0.5, size=(128, 96)):
        pixels = np.empty((size[1], size[0], 3), dtype=np.uint8)
        edge = round(size[0] * share)
        pixels[:, :edge], pixels[:, edge:] = left, right
        Image.fromarray(pixels).save(path)
        return path

    return make
