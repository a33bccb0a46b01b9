"""What only a GPU can show: its figures are the CPU's, nothing waits, a run resumes, compiled is eager."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from slotcon_plugin.apis import pretrain
from slotcon_plugin.config import load_config, settle
from slotcon_plugin.engine import PretrainLoop
from slotcon_plugin.engine.checkpoint import open_checkpoint
from slotcon_plugin.geometry import TwoViewBatch
from slotcon_plugin.models.queue import KeyQueue
from slotcon_plugin.registry import MODELS
from tests.gpu.device import DEVICE, needs_device, on_gpu_alone

pytestmark = needs_device
METHODS = ["slotcon_small", "vader_small", "densecl_small"]
# Largest share by which a loss may differ from float32 on the CPU. Gradients are compared in float32 alone: which
# prototypes SlotCon finds in a photo changes with the last bits of untrained features.
BOUNDS = {torch.float32: 2e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}


def make_batch(size=8, side=96):
    draw = torch.Generator().manual_seed(0)
    return TwoViewBatch(
        views=tuple(torch.randn(size, 3, side, side, generator=draw) for _ in range(2)),
        crop_boxes=torch.tensor([[[0.0, 0, 80, 80], [20, 10, 100, 90]]] * size),
        flipped=torch.tensor([[False, True]] * size),
        sample_index=torch.arange(size),
    )


def losses_and_gradient(model, device, dtype=torch.float32):
    """One step's loss and the gradient of all weights, on the CPU in float32; the same random numbers everywhere."""
    batch = make_batch()
    views, *rest = batch
    batch = TwoViewBatch(tuple(view.to(device) for view in views), *(value.to(device) for value in rest))
    rand, draw = torch.rand, torch.Generator().manual_seed(1)
    with mock.patch("torch.rand", lambda *shape, device=None: rand(*shape, generator=draw).to(device)):
        model = model.to(device).train()
        with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
            loss, _ = model.parse_losses(model(batch, mode="loss"))
    model.zero_grad()
    loss.backward()
    gradient = torch.cat([p.grad.flatten().float().cpu() for p in model.student.parameters()])
    return loss.item(), gradient


def cosine(one, other):
    """In float64: a float32 sum over millions of numbers is off by more than what is asked for."""
    return torch.cosine_similarity(one.double(), other.double(), dim=0)


def build(repo, name, **options):
    torch.manual_seed(0)
    cfg = load_config(repo / f"configs/pretrain/{name}.py", {f"model.{key}": value for key, value in options.items()})
    settle(cfg)
    model = MODELS.build(cfg.model)
    for queue in (module for module in model.modules() if isinstance(module, KeyQueue)):
        queue.enqueue(F.normalize(torch.randn(64, queue.keys.shape[1]), dim=1), torch.arange(100, 164))
    return model


@pytest.mark.parametrize("dtype", list(BOUNDS), ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_the_cpus(repo, name, dtype):
    want_loss, want = losses_and_gradient(build(repo, name), "cpu")
    loss, gradient = losses_and_gradient(build(repo, name), DEVICE, dtype)
    assert loss == pytest.approx(want_loss, rel=BOUNDS[dtype])
    assert gradient.isfinite().all()
    if dtype is torch.float32:
        assert cosine(gradient, want) > 0.999


@pytest.mark.parametrize("mode", [True, pytest.param("reduce-overhead", marks=on_gpu_alone)])
def test_compiled_is_eager(repo, mode):
    """The first step compiles, the second records graphs, the later ones replay them: with new weights each time."""
    eager, compiled = build(repo, "slotcon_small"), build(repo, "slotcon_small", compile=mode)
    for _ in range(4):
        (want_loss, want), (loss, gradient) = (losses_and_gradient(model, DEVICE) for model in (eager, compiled))
        assert loss == pytest.approx(want_loss, rel=1e-3)
        assert cosine(gradient, want) > 0.999
        with torch.no_grad():
            for ours, theirs in zip(compiled.student.parameters(), eager.student.parameters(), strict=True):
                theirs -= 1e-2 * theirs.grad
                ours.copy_(theirs)
        for model in (eager, compiled):
            model.update_teacher()


def config_of_a_run(repo, work_dir, photos, name, dtype, **options):
    settings = {
        "data_root": str(photos),
        "optim_wrapper.dtype": dtype,
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.dataset.view_size": 64,
        "train_dataloader.dataset.overlap_grid": 16,  # of VADeR's maps
        "train_cfg.max_epochs": 2,
        "+default_hooks.pictures": None,
    }
    cfg = load_config(repo / f"configs/pretrain/{name}.py", settings | options)
    cfg.work_dir = str(work_dir)
    return cfg


@on_gpu_alone
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits(repo, tmp_path, folder, name, dtype):
    """torch itself raises where the host would wait; the first step allocates and the last of an epoch reports."""
    run_iter = PretrainLoop.run_iter

    def watched(loop, idx, batch):
        torch.cuda.set_sync_debug_mode("error" if idx == 1 else "default")
        try:
            run_iter(loop, idx, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    report = {"default_hooks.slot_health.interval": 3}
    with mock.patch("slotcon_plugin.engine.PretrainLoop.run_iter", watched):
        pretrain(config_of_a_run(repo, tmp_path / "run", folder, name, dtype, **report))


def test_a_resumed_run_is_the_run_without_the_stop(repo, tmp_path, folder):
    """Whatever is not resumed changes three steps by most of their way.

    Last bits, which a GPU's kernels need not repeat, change steps as small as these by two hundredths at most. After
    large ones, or AdamW's, nothing would be left to compare: a ReLU turns, and the next steps go elsewhere.
    """
    torch.backends.cudnn.deterministic = True
    options = {
        "default_hooks.checkpoint.interval": 3,
        "auto_scale_lr.base_batch_size": 4,
        "env_cfg.cudnn_benchmark": False,
    }

    def run(**how):
        cfg = config_of_a_run(repo, tmp_path / "run", folder, "slotcon_small", "float32", **options)
        cfg.optim_wrapper.optimizer = dict(type="SGD", lr=1e-4, momentum=0.9)
        return {name: value.cpu() for name, value in pretrain(cfg, **how).model.state_dict().items()}

    whole = run()
    (tmp_path / "run/iter_6.pth").unlink()
    start, resumed = open_checkpoint(tmp_path / "run/iter_3.pth")["state_dict"], run(resume=True)

    def distance(one, other, names):
        return sum((one[name].double() - other[name].double()).square().sum() for name in names).sqrt()

    assert resumed.keys() == whole.keys()
    statistics = {name for name, value in whole.items() if "running" in name and value.is_floating_point()}
    weights = {name for name, value in whole.items() if value.is_floating_point()} - statistics
    for branch in ("student.", "teacher."):
        for names in (weights, statistics):
            names = {name for name in names if name.startswith(branch)}
            way = distance(whole, start, names)
            assert way > 1e-5 * distance(whole, dict.fromkeys(names, torch.zeros(())), names), "nothing moved"
            assert distance(resumed, whole, names) < 0.05 * way
    counts = [name for name, value in whole.items() if not value.is_floating_point()]
    assert counts and all(resumed[name].equal(whole[name]) for name in counts)
