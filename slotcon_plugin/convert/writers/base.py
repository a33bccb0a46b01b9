"""What a target format has to say about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from slotcon_plugin.convert.canonical import CanonicalBackbone
from slotcon_plugin.convert.metadata import META_KEY
from slotcon_plugin.convert.names import KeyMap
from slotcon_plugin.convert.network import Network


class Runnable(NamedTuple):
    """A module of the target framework, and how to get a tuple of maps out of it.

    Attributes:
        module: its state dict has exactly the names that the file will carry.
        run: (module, input) -> tuple of maps. The input is an image ``(B, 3, H, W)`` for a backbone, the tuple of four
            stage maps for a feature pyramid or an FCN head.
    """

    module: nn.Module
    run: Callable[[nn.Module, Any], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Target:
    """One target format.

    Attributes:
        name: for the metadata and the tables.
        imports: module whose import shows that the framework is usable.
        suffixes: that the framework's own loader goes by.
        names: library -> key map from canonical to the file's names; ``fpn_names``, ``fcn_names``: of a pyramid, of an
            FCN head, if it takes one.
        build_backbone: (network, config file or None) -> the backbone as the transfer config builds it, SyncBN as BN,
            strides and dilations as in the canonical model: neither changes a weight's meaning.
        build_fpn: (channels of the four stage maps, width, whether with norm layers) -> the framework's pyramid.
        config_fpn: config file -> (width, norm as :func:`one_name` has it) of its feature pyramid; None if it has none.
        build_fcn: (channels of the last stage maps that it sees, width, number of convolutions) -> the framework's FCN
            head.
        config_fcn: (config file, number of stage maps) -> (how many of the last it sees, width, number of
            convolutions) of its FCN head; None if it has none.
        save: (tensors under the file's names, metadata, path) -> None.
    """

    name: str
    imports: str
    suffixes: tuple[str, ...]
    names: Mapping[str, KeyMap]
    fpn_names: KeyMap | None
    build_backbone: Callable[[Network, str | None], Runnable]
    save: Callable[[Mapping[str, Tensor], Mapping[str, Any], Path], None]
    build_fpn: Callable[[tuple[int, ...], int, bool], Runnable] | None = None
    config_fpn: Callable[[str], tuple[int, str | None] | None] = lambda config: None
    fcn_names: KeyMap | None = None
    build_fcn: Callable[[Sequence[int], int, int], Runnable] | None = None
    config_fcn: Callable[[str, int], tuple[int, int, int] | None] = lambda config, maps: None

    def table_of(self, name: str, canonical: CanonicalBackbone) -> KeyMap:
        """The key map that a canonical name of a checkpoint goes by."""
        if name in (canonical.fpn or ()):
            return self.fpn_names
        return self.fcn_names if name in (canonical.fcn or ()) else self.names[canonical.network.library]


def one_name(norm: str | None) -> str | None:
    """``'BN'`` for every kind of BatchNorm (``SyncBN``, ``nnSyncBN``, ...), None for none, others as they are."""
    return "BN" if norm and "BN" in norm else norm or None


def save_torch(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], path: Path) -> None:
    """``{'state_dict': ..., 'slotcon_plugin': metadata}``, readable with ``weights_only=True``."""
    torch.save({"state_dict": dict(tensors), META_KEY: dict(meta)}, path)
