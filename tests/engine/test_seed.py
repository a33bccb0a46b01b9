"""Seeds that numpy would refuse in the middle of a run."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from slotcon_plugin.engine.seed import check_seed
from slotcon_plugin.errors import UserError


@pytest.mark.parametrize("randomness", [None, {}, {"seed": None}, {"seed": 0}, {"seed": 2**32 - 1}])
def test_seeds_that_numpy_takes(randomness):
    check_seed(Config({"randomness": randomness}))
    check_seed(Config({}))


@pytest.mark.parametrize("seed", [-1, 2**32, 5_000_000_000, 1.5, "7", True])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(UserError, match=r"randomness\.seed: expected a whole number from 0 to 2\*\*32 - 1, got "):
        check_seed(Config({"randomness": {"seed": seed}}))
