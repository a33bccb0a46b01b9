"""Child registries of mmengine's, all under the scope ``slotcon_plugin``.

Each registry knows where its modules live, so that ``custom_imports = dict(imports=['slotcon_plugin'])`` in a
config is enough: a room is imported when something is first built from it.
"""

from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry

SCOPE = "slotcon_plugin"  # the package's name: mmengine imports SCOPE.registry by itself


class ProjectRegistry(Registry):
    """A registry that looks in this project first, whatever mmengine's default scope is.

    mmengine keeps one default scope a process. After something of mmseg has run, a plain registry of ours would look
    for ``TorchvisionResNet`` in mmseg.
    """

    def build(self, cfg: dict, *args: Any, **kwargs: Any) -> Any:
        """mmengine's ``build``; a ``_scope_`` in ``cfg`` or a prefix in ``type`` still leads elsewhere."""
        return super().build({"_scope_": SCOPE, **cfg}, *args, **kwargs)


def _child(kind: str, parent: Registry, *rooms: str) -> Registry:
    return ProjectRegistry(kind, parent=parent, scope=SCOPE, locations=[f"slotcon_plugin.{room}" for room in rooms])


MODELS = _child("model", mmengine_registry.MODELS, "models", "data")
DATASETS = _child("dataset", mmengine_registry.DATASETS, "data", "demo_scenes")
DATA_SAMPLERS = _child("data sampler", mmengine_registry.DATA_SAMPLERS, "data")
HOOKS = _child("hook", mmengine_registry.HOOKS, "engine", "evaluation", "visualization")
LOOPS = _child("loop", mmengine_registry.LOOPS, "engine")
OPTIMIZERS = _child("optimizer", mmengine_registry.OPTIMIZERS, "engine")
OPTIM_WRAPPERS = _child("optim_wrapper", mmengine_registry.OPTIM_WRAPPERS, "engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    "optimizer wrapper constructor", mmengine_registry.OPTIM_WRAPPER_CONSTRUCTORS, "engine"
)
# Nothing of ours is in it, but without it mmengine warns of each schedule that it builds in our scope.
PARAM_SCHEDULERS = _child("parameter scheduler", mmengine_registry.PARAM_SCHEDULERS, "engine")
