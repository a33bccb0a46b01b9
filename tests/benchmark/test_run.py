"""What counts as done, and what happens to folders that hold something else."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slotcon_plugin.benchmark import load_plan, plan_steps, run
from slotcon_plugin.benchmark.plan import Data, Plan
from slotcon_plugin.benchmark.records import (
    _own_modules,
    fingerprint,
    mark_started,
    ran_otherwise,
    read_json,
    request,
    why_not_done,
)
from slotcon_plugin.benchmark.step import Step
from slotcon_plugin.errors import RunFailedError, RunStoppedError, UserError


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A step whose tool writes its second argument into result.json and counts its runs."""
    tool = tmp_path / "tool.py"
    tool.write_text(
        "import sys, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "if sys.argv[2] == 'fail': sys.exit('no such luck')\n"
        "if sys.argv[2] != 'nothing': (folder / 'result.json').write_text(sys.argv[2])\n"
        "count = folder / 'count'; count.write_text(count.read_text() + 'x' if count.exists() else 'x')\n"
    )

    def step(name="task/row", text="{}", needs=(), inputs=(), **more):
        folder = tmp_path / "w" / name
        return Step(
            *(name, folder, str(tool), (str(folder), text), (folder / "result.json",)),
            needs=needs,
            inputs=inputs,
            **more,
        )

    return step


def runs(step):
    return len((step.folder / "count").read_text())


def test_a_step_is_run_once_and_again_when_its_command_its_input_or_its_output_changes(make, tmp_path):
    work, checkpoint = tmp_path / "w", tmp_path / "in.pth"
    checkpoint.write_bytes(b"one")
    step = make(inputs=(checkpoint,))
    assert why_not_done(step, work) == "not run yet"
    assert run.run_step(step, work)
    assert why_not_done(step, work) is None
    assert not run.run_step(step, work)
    assert runs(step) == 1

    checkpoint.write_bytes(b"other")
    assert why_not_done(step, work) == "its checkpoint has changed since"
    assert run.run_step(step, work)
    assert why_not_done(step, work) is None

    (step.folder / "result.json").write_text("tampered with")
    assert "is not the file that the step left" in why_not_done(step, work)
    assert run.run_step(step, work)
    assert (step.folder / "result.json").read_text() == "{}"

    changed = make(text="[]", inputs=(checkpoint,))
    assert "the plan, its config or code of your own has changed" in why_not_done(changed, work)
    assert ran_otherwise([step, make("task/never")], work) == []
    assert [line.split(" with ")[0] for line in ran_otherwise([changed], work)] == ["task/row ran"]
    (step.folder / "step.json").write_text('{"step": ')
    assert why_not_done(step, work) == "step.json is damaged"


def test_a_batch_that_follows_the_gpus_is_another_result_on_others(make, tmp_path):
    work, step = tmp_path / "w", make(batch_per_gpu=True)
    assert not mark_started(step, request(step, work))
    assert mark_started(step, request(step, work, 1)), "a CPU's batch is one GPU's"
    assert not mark_started(step, request(step, work, 8)), "a run with another batch is not gone on with"
    assert run.run_step(step, work, gpus=8)
    assert why_not_done(step, work, 8) is None
    assert why_not_done(step, work, 0) == "its batch follows the GPUs, 8 then and 1 now (--gpus)"
    assert run.reasons_to_run([step], work, 2) == {step.name: "its batch follows the GPUs, 8 then and 2 now (--gpus)"}
    assert run.run_step(step, work) and why_not_done(step, work, 1) is None
    assert why_not_done(make(), work, 8) is None  # of a step that keeps its batch


def test_figures_on_scenes_that_are_made_otherwise_are_taken_again(make, tmp_path):
    step = make()
    assert run.run_step(step, tmp_path / "w")
    changed = dataclasses.replace(step, scenes=("masks", "--count", "9"))
    assert run.run_step(changed, tmp_path / "w")
    assert not run.run_step(changed, tmp_path / "w")
    assert runs(step) == 1  # in a folder of its own


def test_each_step_knows_how_the_scenes_that_it_reads_are_made(tmp_path, in_repo):
    plan = load_plan("demo", {"data.scenes.demo_scenes": ["--layout", "camvid"]})
    steps = plan_steps(plan, tmp_path)
    assert {step.scenes for step in steps if "scenes" in step.data} == {("--layout", "camvid")}
    assert {step.scenes for step in steps if "scenes" not in step.data} == {()}


def test_a_plan_is_the_same_from_every_folder(tmp_path, in_repo, monkeypatch):
    def fingerprints():
        plan = load_plan("small_real")
        return {step.name: fingerprint(step, tmp_path) for step in plan_steps(plan, tmp_path)}

    there = fingerprints()
    monkeypatch.chdir(tmp_path)
    assert fingerprints() == there


def test_the_name_of_the_work_dir_is_no_part_of_other_words(in_repo):
    def fingerprints(plan, work_dir):
        return {step.name: fingerprint(step, work_dir) for step in plan_steps(plan, work_dir)}

    plan = load_plan("demo")
    wanted = fingerprints(plan, Path("work_dirs/benchmark/demo"))
    for name in ("demo", "train", "seed"):  # of configs, options and scripts
        assert fingerprints(plan, Path(name)) == wanted


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (1, "0,1")])
def test_a_step_on_the_cpu_sees_no_gpu(gpus, seen, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    tool = tmp_path / "tool.py"
    tool.write_text("import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])\n")
    result = tmp_path / "w/task/row/result.json"
    run.run_step(Step("task/row", result.parent, str(tool), (str(result),), (result,)), tmp_path / "w", gpus)
    assert result.read_text() == seen


def test_config_contents_count_and_comments_do_not(make, tmp_path):
    config = tmp_path / "c.py"
    prints = []
    for number, text in enumerate(["a = 1\n", "a = 1  # why\n", "a = 2\n"]):
        config = tmp_path / f"c{number}" / "c.py"
        config.parent.mkdir()
        config.write_text(text)
        step = dataclasses.replace(make(), configs=(str(config),))
        prints.append(fingerprint(step, tmp_path / "w"))
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("package", [False, True])
@pytest.mark.parametrize(
    "config",
    {
        "list.py": "custom_imports = dict(imports=['slotcon_plugin', '{name}'])\n",
        "text.py": "custom_imports = dict(imports='{name}')\n",
        "inside_another.py": "custom_imports = dict(imports='in_{name}.{name}')\n",
        "some_missing.py": (
            "custom_imports = dict(imports=['no_such.part', 'no_such', 'sys', 'faulty.part', '{name}'], "
            "allow_failed_imports=True)\n"
        ),
        "c.json": '{{"custom_imports": {{"imports": ["{name}"]}}}}',
        "c.yaml": "custom_imports: {{imports: ['{name}']}}\n",
        "inherits.yml": "_base_: list.py\nlr: 1\n",
    }.items(),
    ids=lambda config: config[0],
)
def test_code_of_ones_own_counts(config, package, make, tmp_path, monkeypatch):
    name = f"own_code_{config[0].replace('.', '_')}_{package}".lower()
    folder = tmp_path / f"in_{name}" if config[0] == "inside_another.py" else tmp_path
    file = folder / (f"{name}/__init__.py" if package else f"{name}.py")
    file.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "faulty").mkdir()
    (tmp_path / "faulty/__init__.py").write_text("assert False")
    (tmp_path / "list.py").write_text(f"custom_imports = dict(imports=['{name}'])\n")
    (tmp_path / config[0]).write_text(config[1].format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    step, prints = dataclasses.replace(make(), configs=(str(tmp_path / config[0]),)), []
    for text in ("loss = 1", "loss = 1", "loss = 2"):
        file.write_text(text)
        _own_modules.cache_clear()
        prints.append(fingerprint(step, tmp_path / "w"))
    assert prints[0] == prints[1] != prints[2]


def test_moving_the_work_dir_keeps_steps_done(make, tmp_path):
    run.run_step(make(), tmp_path / "w")
    (tmp_path / "w").rename(tmp_path / "moved")
    old = make()
    folder = tmp_path / "moved/task/row"
    moved = dataclasses.replace(old, folder=folder, arguments=(str(folder), "{}"), outputs=(folder / "result.json",))
    assert why_not_done(moved, tmp_path / "moved") is None


def test_a_folder_of_another_plan_is_set_aside_and_not_resumed(make, tmp_path):
    work = tmp_path / "w"
    step = make()
    assert not mark_started(step, request(step, work))
    (step.folder / "iter_5.pth").write_bytes(b"half done")
    assert mark_started(step, request(step, work)), "the same step goes on where it was"
    changed = make(text="[]")
    assert not mark_started(changed, request(changed, work)), "it would have resumed another run's checkpoint"
    assert [path.name for path in step.folder.iterdir()] == ["started.json"]
    assert (step.folder.with_name("row.old1") / "iter_5.pth").read_bytes() == b"half done"


def test_steps_after_one_that_is_run_again_are_not_done(make, tmp_path):
    work = tmp_path / "w"
    first, second = make("a"), make("b", needs=("a",))
    run.run_step(first, work)
    run.run_step(second, work)
    assert run.reasons_to_run([first, second], work) == {}
    (first.folder / "result.json").unlink()
    assert run.reasons_to_run([first, second], work) == {"a": f"{first.outputs[0]} is gone", "b": "a is run again"}


def test_failures_are_named_with_the_end_of_the_log_and_leave_no_record(make, tmp_path):
    work = tmp_path / "w"
    with pytest.raises(run.StepError, match=r"(?s)failed with status 1.*no such luck"):
        run.run_step(make(text="fail"), work)
    with pytest.raises(RunFailedError, match=r"left no .*result\.json"):
        run.run_step(make(text="nothing"), work)
    assert read_json(work / "task/row/step.json") is None
    with pytest.raises(UserError, match=r"gone\.pth does not exist"):
        run.run_step(make(inputs=(tmp_path / "gone.pth",)), work)


def test_a_step_that_was_asked_to_stop_is_worth_starting_again(make, tmp_path):
    step = make()
    (tmp_path / "tool.py").write_text("import sys; sys.exit(75)")
    with pytest.raises(RunStoppedError, match="task/row was asked to stop"):
        run.run_step(step, tmp_path / "w")


def test_the_launchers_take_this_python(make, tmp_path):
    step = make()
    (tmp_path / "tool.py").write_text(
        "import os, sys, pathlib; (pathlib.Path(sys.argv[1]) / 'result.json').write_text(os.environ['PYTHON'])"
    )
    run.run_step(step, tmp_path / "w")
    assert (step.folder / "result.json").read_text() == sys.executable


def test_a_file_system_without_locks_is_no_reason_to_end(make, tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run.fcntl, "flock", none)
    assert run.run_step(make(), tmp_path / "w")
    assert "no lock, so start no second benchmark here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", "A: !!python/object/apply:eval ['1 + 1']\n_BASE_: [base.yaml]\n"),
        ("b.yaml", ""),
        ("c.py", "_base_ = ['gone.py']\n"),
        ("d.yaml", "a: [\n"),
    ],
)
def test_configs_that_frameworks_read_and_ones_that_nobody_can(name, content, make, tmp_path):
    (tmp_path / "base.yaml").write_text("MODEL: {}\n")
    (tmp_path / name).write_text(content)
    step = make(configs=(str(tmp_path / name),))
    if name in ("a.yaml", "b.yaml"):
        before = fingerprint(step, tmp_path / "w")
        assert len(before) == 64
        return
    with pytest.raises(UserError, match=rf"config .*{name} cannot be read: "):
        run.reasons_to_run([step], tmp_path / "w")


def test_a_resumed_step_says_nothing_about_the_speed_of_the_machine(make, tmp_path):
    steps = [make(f"t/{k}", hours=1.0) for k in range(3)]
    for step, seconds, resumed in zip(steps, (7200, 60), (False, True)):
        step.folder.mkdir(parents=True)
        (step.folder / "step.json").write_text(json.dumps({"seconds": seconds, "resumed": resumed}))
    assert "about 2 h 0 min left" in run.Progress(steps, {"t/0", "t/1"}).left()


def test_nothing_starts_while_a_data_set_is_missing(make, tmp_path):
    step = make(data=("coco",))
    plan = Plan("p", "p.py", {"coco": Data(str(tmp_path / "coco"), ("train2017",))}, {}, {}, (), (0,), "")
    with pytest.raises(UserError, match=r"data set coco: no .*coco.*--set coco=DIR"):
        run.run_plan(plan, [step], tmp_path / "w")
    assert not step.folder.exists()


def test_a_missing_checkpoint_is_named_whatever_it_is_called(make, tmp_path):
    plan = Plan("p", "p.py", {}, {}, {}, (), (0,), "")
    with pytest.raises(UserError, match=r"dino.checkpoint\.pth"):
        run.run_plan(plan, [make(inputs=(tmp_path / "dino/checkpoint.pth",))], tmp_path / "w")
    first = make("a")
    assert run.missing_data(plan, [first, make("b", needs=("a",), inputs=first.outputs)]) == [], "made on the way"


def test_estimate_of_what_is_left_follows_what_finished_steps_took(make, tmp_path):
    steps = [make(name, hours=hours) for name, hours in (("a", 1), ("b", 2), ("c", 1))]
    progress = run.Progress(steps, set())
    assert progress.left() == "0 % of the plan done, about 4 h 0 min left"
    steps[0].folder.mkdir(parents=True)
    (steps[0].folder / "step.json").write_text(json.dumps({"seconds": 1800}))  # half of its estimate
    progress.finish(steps[0])
    assert progress.left() == "25 % of the plan done, about 90 min left"
    assert progress.left(running=600) == "25 % of the plan done, about 80 min left"


def test_a_child_whose_parent_has_died_ends_at_once():
    """The system tells of a death only those who have asked before it."""
    code = "from slotcon_plugin.command import end_with_parent; end_with_parent(-1); print('lives on')"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_child_ends_with_the_process_that_started_it(tmp_path):
    """SIGKILL leaves no time to clean up; the step must not go on alone."""
    child = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    parent = (
        "import subprocess, sys; from slotcon_plugin.command import end_with_parent\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], preexec_fn=end_with_parent).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=tmp_path)
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(pid_file.read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child lives on")
