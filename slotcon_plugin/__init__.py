"""Self-supervised pretraining of dense representations on scene-centric photos, for the mmengine toolchain.

    import slotcon_plugin

    run = slotcon_plugin.pretrain("photos/", out="runs/a", method="vader", init="resnet50.pth", epochs=20)
    slotcon_plugin.export(run, "backbone.pkl", target="detectron2")
    print(slotcon_plugin.evaluate(run, "labelled/"))
    print(slotcon_plugin.finetune("labelled/", run))
    slotcon_plugin.embed(run, "photos/", "photos.npz")

What these functions need is imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slotcon_plugin import registry

if TYPE_CHECKING:
    from slotcon_plugin.actions.embedding import embed
    from slotcon_plugin.actions.evaluating import evaluate
    from slotcon_plugin.actions.exporting import export
    from slotcon_plugin.actions.finetuning import finetune
    from slotcon_plugin.actions.looking import look
    from slotcon_plugin.actions.pretraining import pretrain

__version__ = "0.1.0"

__all__ = ["__version__", "embed", "evaluate", "export", "finetune", "look", "pretrain", "registry"]

_ACTIONS = {
    "embed": "embedding",
    "evaluate": "evaluating",
    "export": "exporting",
    "finetune": "finetuning",
    "look": "looking",
    "pretrain": "pretraining",
}


def __getattr__(name: str) -> Any:
    if name not in _ACTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"slotcon_plugin.actions.{_ACTIONS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ACTIONS})
