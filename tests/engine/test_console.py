"""What a run shows in the terminal, and what is in its log file alone."""

import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from slotcon_plugin import devices
from slotcon_plugin.apis import pretrain
from slotcon_plugin.command import duration
from slotcon_plugin.engine import report
from slotcon_plugin.engine.console import run_console
from slotcon_plugin.engine.health import SlotHealthHook
from slotcon_plugin.engine.health_alarms import Alarms
from slotcon_plugin.engine.hooks import TeacherUpdateHook
from slotcon_plugin.engine.lock import set_aside
from slotcon_plugin.engine.progress import EvaluationProgressHook, ProgressHook, table
from slotcon_plugin.engine.runner import TerseRunner
from slotcon_plugin.models import Method, SlotCon, VADeR


def log_of(work_dir) -> str:
    (path,) = work_dir.rglob("*.log")
    return path.read_text()


class Speaks(Hook):
    """A hook of the user's own; warnings of torch come with the file names of its installation."""

    def before_train(self, runner):
        torch = types.ModuleType("torch.optim")
        exec("def warn(logger): logger.warning('of a library')", vars(torch))
        torch.warn(runner.logger)
        runner.logger.info("progress of my own")
        runner.logger.warning("mine is worth reading")
        runner.logger.error("something broke")
        warnings.warn_explicit("call step first", UserWarning, warnings.__file__, 1)
        warnings.warn_explicit("my photos are small", UserWarning, "/home/me/photos.py", 1)


def test_the_terminal_has_the_run_and_the_log_file_all(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmengine.runner.Runner.from_cfg", TerseRunner.from_cfg)
    (tmp_path / "used").mkdir()
    with run_console() as at_the_end:
        set_aside(tmp_path / "used")  # said before there is a log file
        runner = tiny(tmp_path / "run", epochs=2)
        runner.register_hook(Speaks())
        progress = ProgressHook(lambda _: [("pretraining", "Tiny")], lambda _: [("checkpoint", "x.pth")])
        at_the_end.callback(progress.close)
        runner.register_hook(progress)
        runner.train()
    shown = [line for line in capsys.readouterr().out.splitlines() if line]
    heads = [line.split()[0] for line in shown]
    order = ["pretraining", "device", "log", str(tmp_path / "used"), "done", "checkpoint"]
    assert [head for head in heads if head in order] == order
    assert {"warning: mine is worth reading", "error: something broke", "warning: my photos are small"} <= set(shown)
    log = log_of(tmp_path / "run")
    for hidden in ("of a library", "progress of my own", "call step first", "System environment", "Epoch(train)"):
        assert hidden not in "\n".join(shown) and hidden in log
    for line in shown:
        assert line.removeprefix("warning: ").removeprefix("error: ") in log or "photos/s" in line


def test_what_a_run_goes_on_from_is_told_in_its_log(tiny, tmp_path, capsys, monkeypatch):
    """mmengine prints it."""
    tiny(epochs=1).train()
    monkeypatch.setattr("mmengine.runner.Runner.from_cfg", TerseRunner.from_cfg)
    capsys.readouterr()
    with run_console():
        tiny(epochs=2, resume=True).train()
    assert "Loads checkpoint" not in capsys.readouterr().out
    assert any("Loads checkpoint" in path.read_text() for path in tmp_path.rglob("*.log"))


def test_runs_of_one_second_draw_into_folders_of_their_own(tmp_path):
    made = []
    for name in ("first", "second"):
        runner = TerseRunner.__new__(TerseRunner)
        runner._experiment_name, runner._log_dir = "20260101_120000", str(tmp_path / name)
        asked = dict(type="mmengine.Visualizer", name="visualizer", vis_backends=[dict(type="LocalVisBackend")])
        made.append(runner.build_visualizer(asked))
        assert asked["name"] == "visualizer"
    assert made[0] is not made[1]
    assert [Path(v.get_backend("LocalVisBackend")._save_dir).parent.name for v in made] == ["first", "second"]


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch):
    code = """
import os, sys
from slotcon_plugin.engine.console import SCREEN
for number in range(20000): SCREEN.print("a line of a run")
print("went on", file=sys.stderr)
"""
    done = subprocess.run(f"\"{sys.executable}\" -c '{code}' | head -1", shell=True, capture_output=True, text=True)
    assert done.stdout == "a line of a run\n"
    assert done.stderr.endswith("went on\n") and "Traceback" not in done.stderr


def test_steps_are_the_optimisers_and_not_passes(tiny, capsys):
    runner = tiny(epochs=2, optim_wrapper=dict(accumulative_counts=4))
    runner.register_hook(ProgressHook(lambda _: [], lambda _: []))
    runner.train()
    assert runner.iter == 8 and "done        2 steps in " in capsys.readouterr().out


def test_without_a_terminal_a_line_now_and_then(tiny, capsys, monkeypatch):
    seconds = iter(range(0, 100_000, 10))
    monkeypatch.setattr("slotcon_plugin.engine.progress_line.time.monotonic", lambda: next(seconds))
    runner = tiny(epochs=25)
    runner.register_hook(ProgressHook(lambda _: [], lambda _: []))
    runner.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if "photos/s" in line]
    assert runner.max_iters == 100 and 16 <= len(lines) <= 21, lines  # the first step, then every 5 %
    assert lines[0].startswith("  1%  epoch 1 of 25  16 min left  0.4 photos/s  loss "), lines[0]


def test_a_test_has_a_head_lines_and_an_end(tiny, capsys, monkeypatch):
    seconds = iter(range(0, 100_000, 10))
    monkeypatch.setattr("slotcon_plugin.engine.progress_line.time.monotonic", lambda: next(seconds))
    built = tiny(epochs=1)
    loader = built.build_dataloader(built.cfg.train_dataloader)
    runner = types.SimpleNamespace(model=built.model, logger=built.logger, test_dataloader=loader)
    hook = EvaluationProgressHook([("testing", "iter_90.pth")])
    hook.before_test(runner)
    for batch in range(4):
        hook.after_test_iter(runner, batch)
    hook.after_test(runner)
    shown = capsys.readouterr().out
    assert [word in shown for word in ("testing     iter_90.pth", "photos      16", "device ")] == [True] * 3
    assert " 25%  30 s left  0.4 photos/s" in shown and "done        in 50 s" in shown


def test_a_run_too_short_for_a_report_ends_as_any(tiny_config, tmp_path, capsys):
    cfg = tiny_config(tmp_path / "run", epochs=0.5, hooks=[dict(type="SlotHealthHook", interval=1000)])
    cfg.default_hooks.logger.interval = 1000
    pretrain(cfg)
    assert not (tmp_path / "run/health.jsonl").exists()
    assert "checkpoint  " in capsys.readouterr().out


@pytest.mark.parametrize("epochs", [0.5, 1.5, 3])
def test_schedules_without_an_end_last_as_long_as_the_run(epochs, tiny_config, tmp_path, iterations_per_epoch):
    cfg = tiny_config(tmp_path / "run", epochs=epochs)
    cosine = dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True, eta_min=0.01)
    cfg.param_scheduler = [cosine, dict(type="PolyMomentum", by_epoch=False)]
    runner = pretrain(cfg)
    assert runner.param_schedulers[0].end == epochs * iterations_per_epoch == runner.iter
    assert runner.param_schedulers[1].end == runner.max_iters
    # the copy in the work dir is to be run for longer or shorter, too
    assert "end" not in Config.fromfile(next((tmp_path / "run").glob("*.py"))).param_scheduler[0]


@pytest.mark.parametrize(("epochs", "warm"), [(1 / 4, 0), (0.1, 0), (1 / 2, 1)])  # an epoch has four iterations
def test_a_warm_up_of_one_iteration_is_none(epochs, warm, tiny_config, tmp_path, monkeypatch):
    """mmengine's would leave the whole run at a hundredth of its rate."""
    cfg = tiny_config(tmp_path / "run", epochs=2)
    linear = dict(type="LinearLR", start_factor=0.01, begin=0, end=epochs, convert_to_iter_based=True)
    cosine = dict(type="CosineAnnealingLR", begin=epochs, convert_to_iter_based=True)
    cfg.param_scheduler, rates = [linear, cosine], []

    def note(hook, runner, *_, **__):
        rates.append(runner.optim_wrapper.get_lr()["lr"][0])

    monkeypatch.setattr(TeacherUpdateHook, "before_train_iter", note)
    pretrain(cfg)
    assert rates[0] == pytest.approx(0.001 if warm else 0.1)
    assert rates[1] == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5900, "98 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_head_counts_what_all_ranks_and_passes_do_together(monkeypatch):
    monkeypatch.setattr(report, "get_world_size", lambda: 2)
    dataset = dict(view_size=96, source=dict(type="ImageFolder", root="/photos"))
    backbone = dict(type="TorchvisionResNet", depth=18)
    runner = types.SimpleNamespace(
        model=types.SimpleNamespace(method=Method("vader", "VADeR"), init={"title": "ImageNet"}),
        train_dataloader=types.SimpleNamespace(batch_size=4, dataset=range(2915)),
        cfg=Config(
            dict(model=dict(backbone=backbone), train_dataloader=dict(dataset=dataset), train_cfg=dict(max_epochs=5))
        ),
        optim_wrapper=types.SimpleNamespace(_accumulative_counts=2),
        max_iters=1820,  # 2,915 photos are 364 batches of 4 for each of two ranks
        work_dir="/runs/a",
    )
    assert report.pretraining_head(runner) == [
        ("pretraining", "VADeR: ResNet-18 from ImageNet"),
        ("photos", "2,915 of /photos, in views of 96 pixels"),
        ("length", "5 epochs, 910 steps of 16 photos"),
        ("output", "/runs/a"),
    ]


def test_tables_keep_their_column():
    assert table([("next", "one\ntwo"), ("log", "x")]) == "next        one\n            two\nlog         x"


def test_the_verdict_is_given_when_there_is_something_to_judge():
    alarms = Alarms()
    alarms.judge({"epoch": 1, "data_time_share": 0.1, "effective_rank": 1.0})
    assert alarms.verdict == ""
    alarms.judge({"epoch": 2, "effective_rank": 40.0})
    assert alarms.verdict == "healthy"
    for _ in range(6):
        alarms.judge({"epoch": 2, "effective_rank": 1.0})
    assert alarms.verdict == "features collapsed"


def test_of_several_heads_those_with_a_fault_are_told():
    hook = SlotHealthHook()
    assert hook.verdict == ""
    hook._alarms[""].judge({"epoch": 2, "effective_rank": 40.0})
    assert hook.verdict == "healthy"
    for _ in range(6):
        hook._alarms["_p3"].judge({"epoch": 2, "effective_rank": 1.0})
    assert hook.verdict == "p3: features collapsed"


@pytest.mark.parametrize(
    ("gpus", "cuda", "hidden", "there", "device", "warned"),
    [
        (2, "12.8", None, True, "cuda", False),
        (0, "12.8", "", True, "cpu", False),  # hidden on purpose
        (0, "12.8", None, True, "cpu", True),
        (0, None, None, True, "cpu", True),
        (0, None, None, False, "cpu", False),
    ],
)
def test_a_gpu_that_is_not_used_is_spoken_of(gpus, cuda, hidden, there, device, warned, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "H100")
    monkeypatch.setattr("torch.version.cuda", cuda)
    monkeypatch.setattr(devices, "_DEVICES", tmp_path)
    if there:
        (tmp_path / "nvidia0").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.choose_device()[0] == device
    assert bool(devices.unused_gpu()) == warned


@pytest.mark.parametrize(
    ("threads", "busy", "advice"),
    [
        (2, 0, None),
        (2, 40, None),  # .4 of a core is anybody's background
        (
            2,
            100,
            "1.0 of the 2 CPU cores busy, and this one has 2 threads that wait for each other: fewer are faster, "
            "OMP_NUM_THREADS=1",
        ),
        (2, 200, "OMP_NUM_THREADS=1"),
        (1, 200, None),
    ],
)
def test_threads_that_would_wait_for_other_programs_are_spoken_of(threads, busy, advice, monkeypatch, tmp_path):
    """Two cores, a second between two looks: 200 ticks. Those of guests (the last two) are in the user's already."""
    (before, after) = (tmp_path / "before", tmp_path / "after")
    before.write_text("cpu  1000 10 300 9000 50 5 5 0 70 0\ncpu0 1 1 1 1\n")
    after.write_text(f"cpu  {1000 + busy - busy // 4} 10 {300 + busy // 4} {9200 - busy} 50 5 5 0 {70 + busy} 0\n")
    monkeypatch.setattr(devices, "_CPU_TIMES", before)
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(devices.time, "sleep", lambda seconds: monkeypatch.setattr(devices, "_CPU_TIMES", after))
    said = devices.crowded_cpu(threads)
    assert said is None if advice is None else advice in said


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([{"loss": 2.0}, {"loss": 1.5}, {"loss": 1.25}], "2 at the start, 1.25 at the end"),
        ([{"loss": 2.0}], "2 at the end"),
        # not finite, so left out: by the scaler of float16, or by NanGuardHook
        ([{"loss": None}, {"loss": 1.5}, {"loss": 1.25}, {"loss": None}], "1.5 at the start, 1.25 at the end"),
        ([{"loss": 2.0}, {"loss": None}], ""),
        ([{"epoch": 1}], ""),
        # the queue is full after the second report's last step: the third is the first of full queues alone
        (
            [
                {"loss": 0.0, "queue_fill": 0.0},
                {"loss": 5.1, "queue_fill": 0.6},
                {"loss": 7.7, "queue_fill": 1.0},
                {"loss": 7.9, "queue_fill": 1.0},
                {"loss": 7.8, "queue_fill": 1.0},
            ],
            "7.9 with a full queue, 7.8 at the end",
        ),
        ([{"loss": 5.1, "queue_fill": 0.6}, {"loss": 7.7, "queue_fill": 1.0}], "7.7 at the end"),
        # full within the first report
        ([{"loss": loss, "queue_fill": 1} for loss in (4.5, 5.2, 6.7)], "5.2 with a full queue, 6.7 at the end"),
    ],
)
def test_only_losses_that_compare_are_compared(records, told):
    assert report._loss(records) == told


@pytest.mark.parametrize(
    ("method", "converts", "wanted"),
    [
        (SlotCon.method, True, ["look R", "look R PHOTOS", "evaluate R LABELLED", "finetune LABELLED --backbone R"]),
        (VADeR.method, False, ["look R", "look R PHOTO PHOTO", "evaluate R LABELLED"]),
    ],
)
def test_what_to_do_next_goes_by_the_method_and_the_backbone(method, converts, wanted):
    steps = [line.partition(" ")[2] for line in report._next_steps("R", method, converts)]
    assert [line.removeprefix("-m slotcon_plugin ") for line in steps][: len(wanted)] == wanted
    assert any("export R backbone.pth" in line for line in steps) == converts
