"""timm: its own names, as ``.pth`` or ``.safetensors``, or as a folder that ``timm.create_model`` takes by itself.

The folder has ``config.json`` and ``model.safetensors``, as models on the Hugging Face hub have them:
``timm.create_model("local-dir:OUT", pretrained=True)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from slotcon_plugin.convert.metadata import META_KEY, UNKNOWN
from slotcon_plugin.convert.names import TIMM
from slotcon_plugin.convert.network import Network
from slotcon_plugin.convert.writers.base import Runnable, Target
from slotcon_plugin.convert.writers.torchvision import save as save_file
from slotcon_plugin.errors import ConversionError

# What timm's card of a network says of the weights that timm publishes, and that is not true of others.
_OF_PUBLISHED_WEIGHTS = {"url", "file", "hf_hub_id", "tag", "license", "origin_url", "paper_name", "paper_ids", "notes"}


def create(network: Network) -> nn.Module:
    """timm's own model without its classifier."""
    import timm

    return timm.create_model(network.name, pretrained=False, num_classes=0, **network.options)


def build_backbone(network: Network, config: str | None) -> Runnable:
    """timm's own model and its stage maps."""
    if config is not None:
        raise ConversionError("timm has no config files: leave --config out")
    model = create(network)
    stages = [info["reduction"] for info in model.feature_info]
    plain = len(set(stages)) == 1
    indices = list(range(len(stages)))[-len(network.stages) :]  # timm's ResNets have one before torchvision's
    if network.library == "timm":
        indices = list(network.indices)

    def run(module: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(module.forward_intermediates(image, indices=indices, norm=plain, intermediates_only=True))

    return Runnable(model, run)


def save(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], path: Path) -> None:
    """A file where the path has a suffix, a folder where it has none.

    Raises:
        ConversionError: a folder is wanted, but the file that was read does not hold timm's whole model, or its
            weights want BGR.
    """
    if path.suffix:
        save_file(tensors, meta, path)
        return
    from timm.models import save_for_hf

    if meta["colour_order"] not in ("RGB", UNKNOWN):
        raise ConversionError(
            f"the weights want {meta['colour_order']}, and what reads a folder of timm's feeds RGB: write a file"
        )
    model = create(Network(**meta["network"]))
    missing, _ = model.load_state_dict(dict(tensors), strict=False)
    if missing:
        raise ConversionError(
            f"timm's {meta['network']['name']} has {missing[0]} behind its stage maps, which the checkpoint lacks: a "
            "folder would not load. Write a .safetensors file, for timm.create_model(..., features_only=True)"
        )
    card = {name: value for name, value in model.pretrained_cfg.items() if name not in _OF_PUBLISHED_WEIGHTS}
    for name in ("mean", "std"):
        card[name] = [v / 255 for v in meta[name]] if meta[name] != UNKNOWN else model.pretrained_cfg[name]
    model.pretrained_cfg = card
    save_for_hf(model, path, model_config={META_KEY: dict(meta)}, safe_serialization=True)


TIMM_TARGET = Target(
    name="timm",
    imports="timm",
    suffixes=(".pth", ".pt", ".safetensors", ""),
    names={"torchvision": TIMM, "timm": TIMM},
    build_backbone=build_backbone,
    save=save,
)
