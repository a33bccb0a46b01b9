"""What several evaluations need."""

import pytest
import torch
from mmengine.config import Config

from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.evaluation.arms import build_untrained

MODEL = dict(
    type="SlotCon",
    data_preprocessor=dict(type="TwoViewPreprocessor"),
    backbone=dict(type="TorchvisionResNet", depth=18, zero_init_residual=True),
    projector=dict(type="MLPHead", hidden_channels=16, out_channels=8, num_layers=2),
    predictor=dict(type="MLPHead", hidden_channels=16, num_layers=2),
    grouping=dict(type="SemanticGrouping", num_prototypes=14),
)


@pytest.fixture(scope="session")
def moved_apart():
    """A pretrainer whose student is no longer what its teacher was copied from: the branches can be told apart."""

    def move(model):
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in model.student.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model

    return move


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo_scenes(tmp_path_factory.mktemp("unsup") / "demo", {"train": 4, "val": 3}, (64, 48))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    Config(dict(default_scope="slotcon_plugin", model=MODEL)).dump(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(config, moved_apart):
    """Its teacher is untrained, its student another one."""
    model = moved_apart(build_untrained(config, seed=3))
    path = config.with_name("iter_1.pth")
    torch.save({"meta": {}, "state_dict": model.state_dict()}, path)
    return path
