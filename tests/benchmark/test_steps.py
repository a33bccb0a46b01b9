"""Plans are checked, and become commands of tools/ that those tools understand."""

import argparse
import dataclasses
import os
import re
import subprocess
from pathlib import Path

import pytest

from slotcon_plugin.arguments import add_cfg_options
from slotcon_plugin.benchmark import load_plan, plan_steps
from slotcon_plugin.benchmark.plan import EXPORTS, Pretraining, Task
from slotcon_plugin.benchmark.run import describe
from slotcon_plugin.benchmark.schedule import slurm_script, step_commands
from slotcon_plugin.benchmark.step import layers
from slotcon_plugin.benchmark.steps import applies
from slotcon_plugin.convert.writers import TARGETS
from slotcon_plugin.errors import UserError
from tests.processes import run_python

PLANS = sorted((Path(__file__).resolve().parents[2] / "configs/benchmark").glob("*.py"))


def by_name(plan, work_dir):
    return {step.name: step for step in plan_steps(plan, work_dir)}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_gives_commands_whose_scripts_and_options_exist(path, in_repo, tmp_path):
    plan = load_plan(path)
    steps = plan_steps(plan, tmp_path)
    helps = {}
    for step in steps:
        shared = ("convert/cli.py", "cli/settings.py", "arguments.py")
        files = (step.tool, *(f"slotcon_plugin/{file}" for file in shared))
        source = helps.setdefault(step.tool, "".join(Path(file).read_text() for file in files))
        for word in step.command(1, resume=True)[2:]:
            if word.startswith("--"):
                assert re.search(rf'[" ]{word}[" ]', source), f"{step.tool} has no {word}"
        assert step.hours > 0
        assert all(name in {s.name for s in steps[: steps.index(step)]} for name in step.needs)
    assert plan.estimate


def test_every_target_of_the_converters_can_be_exported(repo):
    assert set(EXPORTS) == set(TARGETS)
    assert all((repo / tool).is_file() for tool, _ in EXPORTS.values())


def test_pretraining_command(plan, tmp_path):
    step = by_name(plan, tmp_path / "w")["pretrain/slotcon-seed1"]
    folder = f"{tmp_path}/w/pretrain/slotcon-seed1"
    assert step.command()[1:] == [
        *("tools/train.py", "configs/pretrain/slotcon_demo.py", "--work-dir", folder),
        *("--photos", f"{tmp_path}/photos"),
        *("--cfg-options", "model.grouping.num_prototypes=16", "randomness.seed=1"),
    ]
    assert step.command(8, resume=True)[:6] == [
        *("bash", "tools/dist_train.sh", "configs/pretrain/slotcon_demo.py", "8", "--resume", "--work-dir")
    ]


def test_transfer_commands_start_from_the_pretraining_of_their_seed(plan, tmp_path):
    steps = by_name(plan, tmp_path / "w")
    d2 = steps["coco/slotcon-seed1"]
    checkpoint = tmp_path / "w/pretrain/slotcon-seed1/checkpoint.pth"
    assert d2.inputs == (checkpoint,)
    assert d2.needs == ("pretrain/slotcon-seed1",)
    assert d2.command(4)[1:] == [
        *("tools/train_d2.py", "--num-gpus", "4"),
        *("--config-file", "configs/transfer/detectron2/mask_rcnn_r50_fpn_1x_coco.yaml"),
        *("--data-root", f"{tmp_path}/photos", "--backbone", str(checkpoint), "--pretraining", "slotcon"),
        *("OUTPUT_DIR", f"{tmp_path}/w/coco/slotcon-seed1", "SEED", "1", "SOLVER.MAX_ITER", "5"),
    ]
    assert "--backbone" not in steps["camvid/random-seed0"].command()
    assert steps["probe/moco-seed1"].inputs == (tmp_path / "moco.pth",)
    assert steps["probe/moco-seed1"].command()[-2:] == ["--bn-calibrate", f"{tmp_path}/photos"]


@pytest.mark.parametrize(
    ("config", "options", "follows"),
    [
        ("slotcon_small", {}, True),
        ("slotcon_coco", {}, False),  # states the total alone
        ("slotcon_coco", {"train_dataloader.batch_size": 32}, True),
        ("slotcon_coco", {"train_dataloader": {"batch_size": 32}}, True),
        ("slotcon_small", {"auto_scale_lr.mode": "accumulate"}, False),
        ("slotcon_small", {"auto_scale_lr": None}, True),
        ("slotcon_small", {"train_dataloader.batch_size": None}, False),
    ],
)
def test_the_batch_of_some_pretrainings_follows_the_gpus(config, options, follows, plan_file, tmp_path):
    plan = load_plan(plan_file, {"pretraining.slotcon.config": f"configs/pretrain/{config}.py"})
    entry = dataclasses.replace(plan.pretraining["slotcon"], options=options)
    plan = dataclasses.replace(plan, pretraining={**plan.pretraining, "slotcon": entry})
    steps = by_name(plan, tmp_path / "w")
    assert steps["pretrain/slotcon-seed0"].batch_per_gpu is follows
    assert not any(step.batch_per_gpu for name, step in steps.items() if not name.startswith("pretrain/"))


def test_an_option_that_the_run_would_refuse_is_named_before_any_run(plan_file, tmp_path):
    plan = load_plan(plan_file, {"pretraining.slotcon.options": {"optimizer.lr": 1}})
    with pytest.raises(UserError, match=r"small\.py: pretraining\.slotcon\.options: optimizer\.lr: .* did you mean"):
        plan_steps(plan, tmp_path)


def test_rows_that_start_from_weights(plan_file, tmp_path):
    """The run starts from the file and is run again when it changes; a row's own options reach its tasks."""
    weights = f"{tmp_path}/photos/net.pth"
    of_tasks = {"camvid": {"model.backbone.norm_eval": 0}}
    row = {"checkpoint": "{photos}/net.pth", "init_title": "ImageNet", "task_options": of_tasks}
    plan = load_plan(plan_file, {f"pretraining.slotcon.{key}": value for key, value in row.items()})
    steps = by_name(plan, tmp_path / "w")
    command = steps["pretrain/slotcon-seed1"].command()
    assert command[command.index("--init") :][:4] == ["--init", weights, "--init-title", "ImageNet"]
    assert steps["pretrain/slotcon-seed1"].inputs == (Path(weights),)
    assert steps["camvid/slotcon-seed1"].inputs == (tmp_path / "w/pretrain/slotcon-seed1/checkpoint.pth",)
    assert "model.backbone.norm_eval=0" in steps["camvid/slotcon-seed0"].command()
    assert "model.backbone.norm_eval=0" not in steps["camvid/random-seed0"].command()


def test_random_weights_may_be_drawn_in_another_way(plan_file, tmp_path):
    options = {"camvid": {"model.backbone.zero_init_residual": False}}
    twin = {"pretraining.random_twin": {"task_options": options}, "tasks.camvid.only": ["random_twin"]}
    steps = by_name(load_plan(plan_file, twin), tmp_path / "w")
    command = steps["camvid/random_twin-seed0"].shown()
    assert "--backbone" not in command and "--pretraining random_twin" in command
    assert "model.backbone.zero_init_residual=False" in command
    assert not [name for name in steps if name.startswith(("probe/random", "pretrain/random"))]


def test_options_of_a_row_are_for_tasks_that_take_them(plan_file):
    with pytest.raises(UserError, match=r"pretraining\.slotcon\.task_options: 'coco' is no task of tool mm, camvid"):
        load_plan(plan_file, {"pretraining.slotcon.task_options": {"coco": {"SOLVER.MAX_ITER": 1}}})


def test_weights_of_somebody_elses_are_probed_with_the_name_of_their_network(plan_file, tmp_path):
    plan = load_plan(plan_file, {"pretraining.moco.network": "resnet50"})
    assert "--network resnet50" in by_name(plan, tmp_path)["probe/moco-seed0"].shown()
    assert "--network" not in by_name(plan, tmp_path)["coco/moco-seed0"].command()
    assert by_name(plan, tmp_path)["convert/moco-detectron2-seed0"].command()[-2:] == ["--network", "resnet50"]
    assert "--network" not in by_name(plan, tmp_path)["convert/slotcon-detectron2-seed0"].command()


def test_options_that_are_dicts_and_lists_arrive_as_they_are(plan_file, tmp_path):
    given = {"photos": {"type": "ImageFolder", "root": "{photos}/my train"}, "+a": ["x y", ("{masks}",)]}
    given |= {"+b": (0.5, 1), "+c": "ImageNet, 100 epochs", "+d": "5", "+e": [1, {"f": None}]}
    plan = load_plan(plan_file, {"pretraining.slotcon.options": {}})
    entry = dataclasses.replace(plan.pretraining["slotcon"], options=given)
    plan = dataclasses.replace(plan, pretraining={**plan.pretraining, "slotcon": entry})
    words = by_name(plan, tmp_path / "w")["pretrain/slotcon-seed0"].command()
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    got = parser.parse_args(words[words.index("--cfg-options") :]).cfg_options
    assert got.pop("randomness.seed") == 0
    assert got == {
        "photos": {"type": "ImageFolder", "root": f"{tmp_path}/photos/my train"},
        "+a": ["x y", (f"{tmp_path}/masks",)],
        **{key: given[key] for key in ("+b", "+c", "+d", "+e")},
    }


def test_a_config_has_a_name_in_a_plan_too(plan_file):
    plan = load_plan(plan_file, {"pretraining.slotcon.config": "slotcon_demo"})
    assert Path(plan.pretraining["slotcon"].config) == Path("configs/pretrain/slotcon_demo.py").resolve()


def test_which_steps_there_are(plan, tmp_path):
    """Seeds x rows; the probe has no random step, camvid leaves moco out, moco is converted once."""
    expected = set()
    for seed in (0, 1):
        expected |= {f"pretrain/slotcon-seed{seed}", f"convert/slotcon-detectron2-seed{seed}"}
        expected |= {f"probe/{row}-seed{seed}" for row in ("slotcon", "moco")}
        expected |= {f"coco/{row}-seed{seed}" for row in ("random", "slotcon", "moco")}
        expected |= {f"camvid/{row}-seed{seed}" for row in ("random", "slotcon")}
    assert set(by_name(plan, tmp_path)) == expected | {"convert/moco-detectron2-seed0"}


def test_a_pretraining_for_all_seeds_is_run_once(plan_file, tmp_path):
    plan = load_plan(plan_file, {"pretraining.slotcon.per_seed": False})
    steps = by_name(plan, tmp_path)
    assert [name for name in steps if name.startswith("pretrain/")] == ["pretrain/slotcon-seed0"]
    assert steps["coco/slotcon-seed1"].needs == ("pretrain/slotcon-seed0",)


def test_data_sets_move_by_name_and_other_keys_as_in_every_config(plan_file):
    plan = load_plan(plan_file, {"masks": "/elsewhere", "seeds": [3]})
    assert plan.data["masks"].path == "/elsewhere"
    assert plan.seeds == (3,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"pretraining.slotcon.chekpoint": "x"}, "pretraining.slotcon has no .'chekpoint'"),
        ({"pretraining.scratch": {}}, "without config and checkpoint it is 'random'"),
        ({"pretraining.random_twin": {}}, "pretraining.random_twin: task_options say in what it is not 'random'"),
        ({"pretraining.slotcon.config": "none.py"}, "none.py does not exist"),
        ({"tasks.probe.tool": "probes"}, "tool 'probes' is none of"),
        ({"tasks.probe.data": "mask"}, "no data set 'mask'"),
        ({"tasks.more": {"tool": "probe", "data": "masks"}}, "tasks.more: expected result, metrics as well"),
        (
            {"pretraining.slotcon.title": "mine", "pretraining.moco.title": "mine"},
            "pretraining: title 'mine' twice: a table could not tell them apart",
        ),
        ({"tasks.probe.config": "configs/pretrain/slotcon_demo.py"}, "need a config, the others have none"),
        ({"tasks.camvid.only": ["slotcom"]}, "no pretraining 'slotcom'"),
        ({"tasks.camvid.only": "slotcon"}, r"camvid.only: expected a list of texts, only=\['...'\], got 'slotcon'"),
        ({"tasks.camvid.metrics": "mIoU"}, r"camvid.metrics: expected a list of texts"),
        ({"data.masks.expects": [1]}, r"data.masks.expects: expected a list of texts"),
        ({"tasks.probe.hours": "1h"}, r"tasks\.probe\.hours: expected a number of at least 0, got '1h'"),
        ({"pretraining.moco.hours": -1}, r"moco\.hours: expected a number of at least 0, got -1"),
        ({"pretraining.moco.hours": True}, r"moco\.hours: expected a number of at least 0, got True"),
        ({"pretraining.slotcon.per_seed": "no"}, r"slotcon\.per_seed: expected True or False, got 'no'"),
        ({"pretraining.slotcon.options": ["a=1"]}, r"slotcon\.options: expected a dict, options=\{'...': ...\}, got"),
        ({"pretraining.slotcon.task_options": {"camvid": "a=1"}}, r"slotcon\.task_options: expected a dict of dicts"),
        ({"pretraining.moco.title": 5}, r"moco\.title: expected a text, got 5"),
        ({"pretraining.moco.photos": 3}, r"moco\.photos: expected a text, got 3"),
        ({"tasks": 5}, r"tasks: expected dict\(NAME=dict\(\.\.\.\)\), got 5"),
        ({"targets": "mmdet"}, r"targets must be a list of names, got 'mmdet'"),
        ({"targets": ["detectron"]}, "'detectron' is none of"),
        ({"seeds": []}, "seeds must be"),
        ({"seeds": 1}, r"seeds must be a list of integers, got 1: seeds=\[1\]"),
        ({"cocoo": "/data"}, "a plan has no .'cocoo'"),
    ],
)
def test_what_a_plan_does_not_know_is_named(plan_file, override, message):
    with pytest.raises(UserError, match=message):
        load_plan(plan_file, override)


def test_dry_run_sums_the_estimate_and_names_what_is_missing(plan, tmp_path):
    text = describe(plan, plan_steps(plan, tmp_path / "w"), tmp_path / "w", gpus=2)
    # 2 pretrainings of 2 h, 4 probes of .5, 6 COCO of 3, 4 CamVid of 1, 3 conversions of .01
    assert "19 of 19 steps to run, 28.03 hours" in text
    assert "hours of a test, made up" in text
    assert f"data set photos: no {tmp_path}/photos" in text
    assert f"checkpoint {tmp_path}/moco.pth" in text
    assert "--num-gpus 2" in text
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks/images/val").mkdir(parents=True)
    (tmp_path / "moco.pth").write_bytes(b"x")
    assert "all there" in describe(plan, plan_steps(plan, tmp_path / "w"), tmp_path / "w", gpus=2)


def test_slurm_script_submits_a_job_array_a_layer_and_runs_the_step_of_its_task(plan, tmp_path):
    steps = plan_steps(plan, tmp_path / "w")
    by_layer = layers(steps)
    script = tmp_path / "run.sh"
    script.write_text(slurm_script(plan, steps, ["echo", "ran"], gpus=8))
    stub = tmp_path / "bin/sbatch"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "$(wc -l < {tmp_path}/calls);cluster"\n')
    stub.chmod(0o755)
    env = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(script), "--partition", "gpu"], check=True, env=env, capture_output=True)
    first, second = (tmp_path / "calls").read_text().splitlines()
    count = len(by_layer[0])
    assert first == f"--parsable --job-name=small --array=0-{count - 1} --partition gpu {script}"
    assert second == (
        f"--parsable --job-name=small --array={count}-{len(steps) - 1} --dependency=afterok:1 --partition gpu {script}"
    )
    in_order = [step.name for layer in by_layer for step in layer]
    for index in (0, count, len(steps) - 1):
        env["SLURM_ARRAY_TASK_ID"] = str(index)
        done = subprocess.run(["bash", str(script)], check=True, env=env, capture_output=True, text=True)
        assert done.stdout == f"ran --step {in_order[index]}\n"


def test_a_folder_may_have_the_name_of_a_number(plan_file):
    assert load_plan(plan_file, {"masks": 2024}).data["masks"].path == "2024"
    with pytest.raises(UserError, match=r"data\.masks\.path: expected a text, got"):
        load_plan(plan_file, {"masks": ["a", "b"]})


def test_a_job_without_gpus_asks_for_none(plan, tmp_path):
    assert "gres" not in slurm_script(plan, plan_steps(plan, tmp_path), ["echo"], gpus=0)
    assert "#SBATCH --gres=gpu:2\nset -euo" in slurm_script(plan, plan_steps(plan, tmp_path), ["echo"], gpus=2)


def test_commands_for_other_machines_say_nothing_of_the_gpus_of_this_one(plan_file, tmp_path):
    printed = run_python("tools/benchmark.py", plan_file, "--print-commands")
    assert printed.returncode == 0, printed.stderr
    assert "--gpus" not in printed.stdout
    refused = run_python("tools/benchmark.py", plan_file, "--slurm", tmp_path / "run.sh")
    assert refused.returncode != 0
    assert "--slurm: give --gpus, too" in refused.stderr
    assert not (tmp_path / "run.sh").exists()


def test_print_commands_gives_one_line_a_step(plan, plan_file, tmp_path):
    steps = plan_steps(plan, tmp_path / "w")
    lines = step_commands(steps, ["python", "tools/benchmark.py", "p.py"])
    assert lines[0] == f"python tools/benchmark.py p.py --step {steps[0].name}"
    done = run_python("tools/benchmark.py", plan_file, "--print-commands", "--gpus", "0")
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in printed] == [step.name for step in steps]


@pytest.mark.parametrize(("config", "groups"), [("slotcon_demo", True), ("vader_demo", False)])
def test_segmentation_without_labels_is_for_methods_that_group(config, groups, in_repo):
    task = Task(tool="unsupervised", data="masks", result="x", metrics=("mIoU",))
    assert applies(task, "row", Pretraining(config=f"configs/pretrain/{config}.py")) is groups


OWN_BACKBONE = {"pretraining.slotcon.options": {"model.backbone": dict(_delete_=True, type="TinyNet")}}


@pytest.mark.parametrize("network", [None, "resnet18"])
def test_a_backbone_of_ones_own_is_not_handed_to_other_frameworks(network, plan_file, tmp_path):
    plan = load_plan(plan_file, {**OWN_BACKBONE, "pretraining.slotcon.network": network, "targets": []})
    with pytest.raises(UserError, match=r"tasks\.\w+ fine-tunes, and the backbone TinyNet of pretraining\.slotcon"):
        plan_steps(plan, tmp_path)


@pytest.mark.parametrize("targets", [[], ["detectron2"]])
@pytest.mark.parametrize("network", [None, "resnet18"])
def test_a_backbone_of_ones_own_is_probed_as_it_was_run_or_as_the_network_that_it_equals(
    network, targets, plan_file, tmp_path
):
    probe = dict(tool="probe", data="masks", result="linear_probe_*", metrics=["mIoU"])
    changes = {"tasks": dict(_delete_=True, probe=probe), "targets": targets, "pretraining.slotcon.network": network}
    plan = load_plan(plan_file, {**OWN_BACKBONE, **changes})
    if targets and not network:  # before the pretraining has run for hours
        with pytest.raises(UserError, match=r"backbone TinyNet of pretraining\.slotcon cannot be .*network="):
            plan_steps(plan, tmp_path)
        return
    steps = by_name(plan, tmp_path / "w")
    probed = steps["probe/slotcon-seed0"].arguments
    if not network:
        assert probed[probed.index("--config") + 1].endswith("w/pretrain/slotcon-seed0/slotcon_demo.py")
        assert "--network" not in probed
        return
    assert "--config" not in probed
    reading = [step for name, step in steps.items() if name.startswith(("probe/slotcon", "convert/slotcon"))]
    assert len(reading) == 2 + 2 * len(targets)
    assert all(step.arguments[step.arguments.index("--network") + 1] == "resnet18" for step in reading)


def test_printed_commands_leave_a_path_with_blanks_whole(plan_file, tmp_path):
    words = [
        "tools/benchmark.py",
        plan_file,
        "--print-commands",
        "--gpus",
        "0",
        "--set",
        "photos=my photos",
        "seeds=[0, 1]",
    ]
    done = run_python(*words)
    assert done.returncode == 0, done.stderr
    assert all("'photos=my photos'" in line and "'seeds=[0,1]'" in line for line in done.stdout.splitlines())
