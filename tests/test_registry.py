"""Ours are found whatever framework has run in the process before."""

import pytest
from mmengine.registry import DefaultScope

from slotcon_plugin.models import MLPHead
from slotcon_plugin.registry import MODELS


def test_default_scope_of_another_package_does_not_hide_ours():
    with DefaultScope.overwrite_default_scope("mmengine"):
        assert isinstance(MODELS.build({"type": "MLPHead", "in_channels": 2, "hidden_channels": 2}), MLPHead)


def test_unknown_types_are_still_refused():
    with pytest.raises(KeyError, match="NoSuchHead"):
        MODELS.build({"type": "NoSuchHead"})
