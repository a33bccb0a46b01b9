"""Child registries of mmengine's, all under the scope ``slotcon_plugin``.

Each registry knows where its modules live, so that ``custom_imports = dict(imports=['slotcon_plugin'])`` in a
config is enough: a room is imported when something is first built from it.
"""

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry

SCOPE = "slotcon_plugin"  # the package's name: mmengine imports SCOPE.registry by itself


def _child(kind: str, parent: Registry, *rooms: str) -> Registry:
    return Registry(kind, parent=parent, scope=SCOPE, locations=[f"slotcon_plugin.{room}" for room in rooms])


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
PARAM_SCHEDULERS = _child("parameter scheduler", mmengine_registry.PARAM_SCHEDULERS, "engine")
METRICS = _child("metric", mmengine_registry.METRICS, "evaluation")
