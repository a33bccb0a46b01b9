"""What a target format has to say about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from slotcon_plugin.convert.canonical import CanonicalBackbone
from slotcon_plugin.convert.decoders import Form
from slotcon_plugin.convert.metadata import META_KEY
from slotcon_plugin.convert.names import KeyMap
from slotcon_plugin.convert.network import Network

NONE = "the config has none"
"""Why a decoder does not fit: the config has no such part."""


class Runnable(NamedTuple):
    """A module of the target framework, and how to get a tuple of maps out of it.

    Attributes:
        module: its state dict has exactly the names that the file will carry.
        run: (module, input) -> tuple of maps. The input is an image ``(B, 3, H, W)`` for a backbone, a tuple of
            maps for a decoder: the stage maps, or those of the decoder that it stands on.
    """

    module: nn.Module
    run: Callable[[nn.Module, Any], tuple[Tensor, ...]]


@dataclass(frozen=True)
class TargetDecoder:
    """A decoder of one kind in a target format, see :data:`~slotcon_plugin.convert.decoders.DECODERS`.

    Attributes:
        names: key map from canonical to the file's names.
        build: (channels of all stage maps, form) -> the framework's own, without its classifier.
        of_config: (config file, number of stage maps) -> the form of the config's, or why none fits there.
        halved: whether it takes stage maps only if each is half as large as the one before.
    """

    names: KeyMap
    build: Callable[[Sequence[int], Form], Runnable]
    of_config: Callable[[str, int], Form | str] = lambda config, maps: NONE
    halved: bool = False


@dataclass(frozen=True)
class Target:
    """One target format.

    Attributes:
        name: for the metadata and the tables.
        imports: module whose import shows that the framework is usable.
        suffixes: that the framework's own loader goes by.
        names: library -> key map from canonical to the file's names of a backbone.
        build_backbone: (network, config file or None) -> the backbone as the transfer config builds it, SyncBN as BN,
            strides and dilations as in the canonical model: neither changes a weight's meaning.
        decoders: kind -> what the format says of it; a kind that is not there is not taken.
        save: (tensors under the file's names, metadata, path) -> None.
    """

    name: str
    imports: str
    suffixes: tuple[str, ...]
    names: Mapping[str, KeyMap]
    build_backbone: Callable[[Network, str | None], Runnable]
    save: Callable[[Mapping[str, Tensor], Mapping[str, Any], Path], None]
    decoders: Mapping[str, TargetDecoder] = field(default_factory=dict)

    def table_of(self, name: str, canonical: CanonicalBackbone) -> KeyMap:
        """The key map that a canonical name of a checkpoint goes by."""
        kind = next((kind for kind, weights in canonical.decoders.items() if name in weights), None)
        return self.decoders[kind].names if kind else self.names[canonical.network.library]


def one_name(norm: str | None) -> str | None:
    """``'BN'`` for every kind of BatchNorm (``SyncBN``, ``nnSyncBN``, ...), None for none, others as they are."""
    return "BN" if norm and "BN" in norm else norm or None


def save_torch(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], path: Path) -> None:
    """``{'state_dict': ..., 'slotcon_plugin': metadata}``, readable with ``weights_only=True``."""
    save_content({"state_dict": dict(tensors), META_KEY: dict(meta)}, path)


def save_content(content: Mapping[str, Any], path: Path) -> None:
    """A torch file, by Python's own: of a full disk torch's only says that it is at an unexpected position."""
    with path.open("wb") as file:
        torch.save(content, file)
