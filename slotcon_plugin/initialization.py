"""Starting a pretraining from weights that exist: a file of any kind, or a library's own published ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from slotcon_plugin.convert import read_checkpoint
from slotcon_plugin.convert.metadata import UNKNOWN
from slotcon_plugin.convert.network import Network, inside, network_of_backbone
from slotcon_plugin.errors import UserError
from slotcon_plugin.models import BasePretrainer

LIBRARIES = ("timm", "torchvision")
_OPTIONS = {"file", "title", "branch", "prefix", "kind", "colour_order", "mean", "std"}


@dataclass(frozen=True)
class InitialWeights:
    """A backbone's weights and where they come from.

    Attributes:
        weights: under the library's names.
        mean, std: of the RGB pixels in 0..255 that they expect.
        facts: for the checkpoints of the run: ``title``, ``file``, ``sha256``, ``method``, ``branch``, ...
    """

    weights: Mapping[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    facts: Mapping[str, Any]

    def set_input(self, cfg: Config) -> None:
        """Have a pretraining config feed pixels as these weights expect them, unless it says otherwise itself."""
        pixels = cfg.model.data_preprocessor
        for name in ("mean", "std"):
            # rounded as checkpoints state it, so that a resumed run divides by the very same numbers
            wanted = tuple(round(value, 4) / 255 for value in getattr(self, name))
            given = pixels.setdefault(name, wanted)
            if any(abs(a - b) > 1e-3 for a, b in zip(given, wanted)):
                print_log(
                    f"model.data_preprocessor.{name} is {tuple(given)}, but {self.facts['title']} expects "
                    f"{tuple(round(value, 4) for value in wanted)}: "
                    "features will be off at the start",
                    "current",
                    logging.WARNING,
                )

    def put_into(self, model: BasePretrainer) -> None:
        """Load student and teacher."""
        for branch in (model.student, model.teacher):
            network = inside(branch["backbone"])
            missing, _ = network.load_state_dict(dict(self.weights), strict=False)
            behind = getattr(branch["backbone"], "behind", frozenset())
            if lost := sorted(set(missing) - behind):
                raise RuntimeError(f"{lost[0]} of the backbone got no weight from {self.facts['title']}")
        model.init = dict(self.facts)
        left_over = self.facts.get("left_over") or []
        print_log(
            f"Student and teacher start from {self.facts['title']} ({self.facts['file']}): {len(self.weights)} tensors"
            + (f"; left over: {', '.join(left_over[:6])}{', ...' if len(left_over) > 6 else ''}" if left_over else ""),
            "current",
        )


def read_initial_weights(init: str | Mapping[str, Any], backbone: Mapping[str, Any]) -> InitialWeights:
    """Weights for the backbone of a pretraining config.

    Args:
        init: a file of any kind that :func:`~slotcon_plugin.convert.read_checkpoint` reads; ``'timm'`` or
            ``'torchvision'`` for the library's published weights of this network, which its own loader may download;
            or a dict of ``file`` and, where the file does not say, ``title`` (for tables), ``branch``, ``prefix``,
            ``kind``, ``colour_order``, ``mean`` and ``std`` (0..255).
        backbone: config of the backbone.

    Raises:
        UserError: an unknown option, a backbone of another library, weights that cannot be obtained, or that do not
            fit: every tensor of the backbone must find its weight.
    """
    options = dict(init) if isinstance(init, Mapping) else {"file": init}
    if unknown := options.keys() - _OPTIONS:
        raise UserError(f"init takes {', '.join(sorted(_OPTIONS))}, got {', '.join(sorted(unknown))}")
    if not options.get("file"):
        raise UserError(
            "this config starts from weights: give them, --init FILE (any that the converters read), or --init timm or "
            "--init torchvision for the library's published ones"
        )
    network = network_of_backbone(backbone)
    if network is None:
        raise UserError(f"init: {backbone.get('type')} cannot be started from weights; use a TimmBackbone instead")
    if options["file"] in LIBRARIES:
        return _published(options["file"], network, options.get("title"))
    return _from_file(network, **options)


def _from_file(network: Network, file: str, title: str | None = None, **options: Any) -> InitialWeights:
    declared = {name: options.pop(name, None) for name in ("colour_order", "mean", "std")}
    canonical = read_checkpoint(file, network=network, declared=declared, **options)
    meta = dict(canonical.meta)
    if meta["colour_order"] == "BGR":
        raise UserError(f"init {file}: its weights expect BGR, pretraining feeds RGB")
    if UNKNOWN in (meta["mean"], meta["std"]):
        usual = ([round(255 * value, 4) for value in values] for values in network.usual_pixels)
        meta |= {key: values for key, values in zip(("mean", "std"), usual) if meta[key] == UNKNOWN}
        print_log(
            f"{file} does not say which pixels its weights expect; taken to be RGB with mean {meta['mean']} and std "
            f"{meta['std']}, as {network} usually is (init.mean, init.std if not)",
            "current",
            logging.WARNING,
        )
    facts = {
        "title": title or meta.get("title") or (Path(file).name if meta["method"] == UNKNOWN else meta["method"]),
        "file": Path(file).name,
        "sha256": meta["source_sha256"],
        **{name: meta[name] for name in ("kind", "method", "branch", "left_over")},
    }
    return InitialWeights(canonical.state_dict, tuple(meta["mean"]), tuple(meta["std"]), facts)


def _published(library: str, network: Network, title: str | None) -> InitialWeights:
    try:
        load = _load_timm if library == "timm" else _load_torchvision
        weights, mean, std, tag = load(network)
    except UserError:
        raise
    except Exception as error:  # a download may fail in as many ways as there are libraries below it
        raise UserError(
            f"init {library}: the published weights of {network.name} cannot be obtained "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}). Without a "
            "network, fetch the file elsewhere and give it by its path: --init FILE"
        ) from error
    facts = {"title": title or f"{library}'s {tag}", "file": f"{library}:{network.name}.{tag}", "sha256": None}
    facts |= {"kind": library, "method": tag, "branch": "backbone", "left_over": []}
    return InitialWeights(weights, *(tuple(round(255 * v, 4) for v in values) for values in (mean, std)), facts)


def _load_timm(network: Network) -> tuple[Mapping[str, Tensor], tuple, tuple, str]:
    import timm

    model = timm.create_model(network.name, pretrained=True, num_classes=0, **network.options)
    card = model.pretrained_cfg
    return model.state_dict(), card["mean"], card["std"], card.get("tag") or "weights"


def _load_torchvision(network: Network) -> tuple[Mapping[str, Tensor], tuple, tuple, str]:
    from torchvision.models import get_model_weights

    if network.library != "torchvision":
        raise UserError(f"init torchvision: {network} is not torchvision's; use --init timm")
    published = get_model_weights(network.name).DEFAULT
    weights = {k: v for k, v in published.get_state_dict(check_hash=True).items() if not k.startswith("fc.")}
    return weights, published.transforms().mean, published.transforms().std, published.name
