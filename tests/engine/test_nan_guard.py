import itertools
import json
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from slotcon_plugin.checkpoints.runs import numbered_checkpoints
from slotcon_plugin.engine import MixedPrecisionOptimWrapper, NanGuardHook, NonFiniteLossError
from slotcon_plugin.errors import UserError
from slotcon_plugin.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module(force=True)
class OnDeviceWrapper(MixedPrecisionOptimWrapper):
    """Takes the CPU for a device that must not be waited for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.on_device = True


ON_DEVICE = dict(type="OnDeviceWrapper", optimizer=dict(type="SGD", lr=0.1, momentum=0.9, fused=True))


def poisoned(*forwards):
    return dict(type="PoisonedSlotCon", poisoned=forwards)


def guard(**kwargs):
    return [dict(type="NanGuardHook", **kwargs)]


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def snapshots(runner):
    """State dict before each iteration, filled in while the run goes on."""
    step, taken = runner.model.train_step, []

    def recorded(*args, **kwargs):
        taken.append(weights(runner))
        return step(*args, **kwargs)

    runner.model.train_step = recorded
    return taken


def log_of(tmp_path):
    return "".join(path.read_text() for path in tmp_path.rglob("*.log"))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_healthy_run_is_not_touched(tiny, tmp_path):
    with_guard, without = tiny(tmp_path / "a", hooks=guard()), tiny(tmp_path / "b")
    with_guard.train()
    without.train()
    assert_same(weights(with_guard), weights(without))
    assert not list(tmp_path.rglob("nonfinite*"))


@pytest.mark.parametrize("wrapper", [{}, ON_DEVICE], ids=["on the host", "on the device"])
def test_the_run_stops_with_the_evidence_and_the_state_before(tiny, tmp_path, wrapper):
    runner = tiny(hooks=guard(), model=poisoned(6), optim_wrapper=wrapper)
    before = snapshots(runner)
    seen = []
    model_forward = runner.model.forward
    runner.model.forward = lambda **kw: (seen.append(kw["inputs"].sample_index.tolist()), model_forward(**kw))[1]
    with pytest.raises(NonFiniteLossError, match=r"iteration 6 is not finite.*weights are of ordinary size") as caught:
        runner.train()
    report = json.loads((tmp_path / "nonfinite_iter_6.json").read_text())
    assert (report["iter"], report["epoch"]) == (6, 2)
    (rank,) = report["ranks"]
    assert rank["losses"]["loss"] == "nan"
    assert rank["losses"]["loss_slot"] == "nan"
    assert float(rank["losses"]["loss_group"]) > 0
    assert rank["sample_index"] == seen[5]
    assert rank["photos"] == [f"photos/{i:02d}.jpg" for i in seen[5]]
    checkpoint = torch.load(tmp_path / "nonfinite_iter_6.pth", weights_only=True)
    assert_same(checkpoint["state_dict"], before[5])
    assert checkpoint["meta"]["iter"] == 5
    assert {path.name for path in numbered_checkpoints(tmp_path)} - {"iter_6.pth"} == {"iter_3.pth"}
    for name in ("nonfinite_iter_6.json", "nonfinite_iter_6.pth"):
        assert str(tmp_path / name) in str(caught.value)


PRECISIONS = [dict(dtype="float32"), dict(dtype="bfloat16"), dict(dtype="float16", init_scale=8.0)]
SKIPPING = [*PRECISIONS, *(ON_DEVICE | precision for precision in PRECISIONS)]


@pytest.mark.parametrize("wrapper", SKIPPING, ids=lambda wrapper: f"{wrapper['dtype']} {wrapper.get('type', '')}")
def test_a_skipped_batch_leaves_no_trace(tiny, tmp_path, wrapper):
    # in float16 an overflow may come in a healthy run: that it is skipped need not be asked for
    action = "stop" if wrapper["dtype"] == "float16" else "skip"
    runner = tiny(hooks=guard(action=action), model=poisoned(3), optim_wrapper=wrapper)
    before = snapshots(runner)
    rates = []
    runner.register_hook(RateRecorder(rates), priority="LOWEST")
    runner.train()
    assert_same(before[2], before[3])
    assert not torch.equal(before[3]["student.grouping.prototypes"], before[4]["student.grouping.prototypes"])
    assert runner.model.teacher_steps == 7  # of eight iterations
    waited = 3 if "type" in wrapper else 2  # the schedule, too; for a device, as soon as the host had heard of it
    assert [later == earlier for earlier, later in itertools.pairwise(rates)] == [n == waited for n in range(1, 8)]
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    assert (tmp_path / "nonfinite_iter_3.json").exists()
    assert not (tmp_path / "nonfinite_iter_3.pth").exists()
    assert "The update is skipped (1 in a row)" in log_of(tmp_path)


class RateRecorder(Hook):
    """Notes the learning rate after each iteration."""

    def __init__(self, rates):
        self.rates = rates

    def after_train_iter(self, runner, *args, **kwargs):
        self.rates.append(runner.optim_wrapper.get_lr()["lr"][0])


def test_a_skip_drops_what_was_accumulated_and_the_next_update_is_whole(tiny):
    runner = tiny(hooks=guard(action="skip"), model=poisoned(2, 5), optim_wrapper=dict(accumulative_counts=2))
    before = snapshots(runner)
    runner.train()
    name = "student.backbone.0.weight"
    changed = [not torch.equal(a[name], b[name]) for a, b in zip(before, [*before[1:], weights(runner)])]
    # updates are due after 2, 4, 6, 8; the second batch is poisoned (no update), the fifth too (half an update)
    assert changed == [False, False, False, True, False, True, False, True]
    assert runner.model.teacher_steps == 3


def test_skipping_ends_when_it_happens_too_often_in_a_row(tiny, tmp_path):
    runner = tiny(hooks=guard(action="skip", max_skips=3), model=poisoned(1, 2, 4, 5, 6))
    with pytest.raises(NonFiniteLossError, match="iteration 6 is not finite"):
        runner.train()
    assert sorted(p.name for p in tmp_path.glob("nonfinite*")) == [
        *(f"nonfinite_iter_{i}.json" for i in (1, 2, 4, 5, 6)),
        "nonfinite_iter_6.pth",
    ]


def test_skipping_ends_at_once_when_the_weights_are_spoilt(tiny):
    runner = tiny(hooks=guard(action="skip"), optim_wrapper=dict(optimizer=dict(type="SGD", lr=float("inf"))))
    with pytest.raises(
        NonFiniteLossError, match=r"iteration 2 .*weights are spoilt already \(student\..* is not finite\)"
    ) as caught:
        runner.train()
    assert "lower learning rate" in str(caught.value)


@pytest.mark.parametrize("size", [1e10, 1e28])
def test_weights_of_absurd_size_are_named_as_the_cause(tiny, size):
    runner = tiny(hooks=guard(action="skip"), model=poisoned(3))

    class Spoil(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 2:
                parameters = dict(runner.model.named_parameters())
                parameters["student.backbone.0.weight"].data[0, 0, 0, 0] = size

    runner.register_hook(Spoil())
    with pytest.raises(NonFiniteLossError, match=re.escape(f"(student.backbone.0.weight reaches {size:.1e})")):
        runner.train()


def test_a_wrapper_that_asks_no_guard_is_refused():
    model = torch.nn.Linear(2, 2)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(UserError, match=r"needs optim_wrapper\.type='MixedPrecisionOptimWrapper'.*got OptimWrapper"):
        NanGuardHook().before_train(SimpleNamespace(model=model, optim_wrapper=wrapper))


@pytest.mark.parametrize(("option", "words"), [(dict(action="ignore"), "'ignore'"), (dict(max_skips=0), "got 0")])
def test_options_are_checked(tiny, option, words):
    with pytest.raises(ValueError, match=words):
        tiny(hooks=guard(**option))


ONE_OF_TWO = """
import importlib.util, sys, torch
import torch.distributed as dist
from mmengine.runner import Runner
from slotcon_plugin.engine.processes import start_processes
spec = importlib.util.spec_from_file_location("tiny", sys.argv[1])
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
torch.set_num_threads(1)
cfg = tiny.make_tiny_config(
    sys.argv[2],
    hooks=[dict(type="NanGuardHook", action="skip")],
    model=dict(type="PoisonedSlotCon"),
    optim_wrapper=dict(accumulative_counts=int(sys.argv[3])),
)
cfg.launcher, cfg.train_dataloader.batch_size = "pytorch", 2
start_processes(cfg)
runner = Runner.from_cfg(cfg)
model = runner.model.module
model.poisoned = (2,) if dist.get_rank() == 1 else ()
runner.train()
flat = torch.cat([p.flatten() for p in model.parameters()])
both = [torch.empty_like(flat) for _ in range(2)]
dist.all_gather(both, flat)
assert flat.isfinite().all() and torch.equal(*both), "the ranks have different weights"
assert model.center.value.isfinite().all()
print("teacher steps", model.teacher_steps.item())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("accumulated", "updates"), [(1, 7), (2, 3)])
def test_ranks_skip_together_when_one_of_them_meets_a_nan(run_ranks, tmp_path, repo, accumulated, updates):
    command = ["-c", ONE_OF_TWO, repo / "tests/engine/conftest.py", tmp_path, accumulated]
    for done in run_ranks(command, command):
        assert f"teacher steps {updates}\n" in done.stdout
    report = json.loads((tmp_path / "nonfinite_iter_2.json").read_text())
    assert [part["losses"]["loss"] == "nan" for part in report["ranks"]] == [False, True]
    assert [len(part["photos"]) for part in report["ranks"]] == [2, 2]
