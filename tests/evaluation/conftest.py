"""What several evaluations need."""

import pytest
import torch


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
