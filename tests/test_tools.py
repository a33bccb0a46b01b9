"""Every tool ends as it should: a bug of ours keeps its traceback, what the user can mend is a sentence."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import run_python

ROOT = Path(__file__).resolve().parent.parent
SMALL = "configs/pretrain/slotcon_small.py"
TRANSFER = "configs/transfer/mmseg/fcn_r18_camvid.py"
D2 = "configs/transfer/detectron2/mask_rcnn_r50_fpn_1x_coco.yaml"
PLAN = "configs/benchmark/demo.py"

# tool -> where a bug is planted on its main path, and arguments that lead there
BUGS = {
    "benchmark": ("benchmark.plan_steps", [PLAN]),
    "benchmark_gpu": ("profiling.gpu_table.profile_step", ["--device", "cpu", "--out", "OUT"]),
    "benchmark_pipeline": ("profiling.pipeline.profile_pipeline", ["PHOTOS"]),
    "benchmark_step": ("models.SlotCon.loss", [SMALL, "--batch-size", "2", "--repeats", "1"]),
    "benchmark_table": ("benchmark.load_plan", [PLAN]),
    "convert_to_d2": ("convert.cli.convert", ["CHECKPOINT", "OUT"]),
    "convert_to_mmdet": ("convert.cli.convert", ["CHECKPOINT", "OUT"]),
    "convert_to_mmseg": ("convert.cli.convert", ["CHECKPOINT", "OUT"]),
    "convert_to_timm": ("convert.cli.convert", ["CHECKPOINT", "OUT"]),
    "convert_to_torchvision": ("convert.cli.convert", ["CHECKPOINT", "OUT"]),
    "eval_pixel_retrieval": ("models.VADeR.embed", ["configs/pretrain/vader_demo.py", "PHOTOS"]),
    "eval_probe": ("evaluation.open_labelled_set", ["CHECKPOINT", "--data", "PHOTOS"]),
    "eval_unsupervised_seg": ("evaluation.open_labelled_set", [SMALL, "CHECKPOINT", "--data", "PHOTOS"]),
    "import_official": ("convert.official.import_official", ["CHECKPOINT", "OUT"]),
    "make_demo_scenes": ("demo_scenes.make_demo_scenes", ["OUT"]),
    "plot_run": ("visualization.run.plot_run", ["OUT"]),
    "test": ("transfer.openmmlab.evaluate", [TRANSFER, "CHECKPOINT"]),
    "train": ("apis.pretrain", [SMALL, "--photos", "PHOTOS"]),
    "train_d2": ("transfer.d2.train", ["--config-file", D2]),
    "visualize_groups": ("loading.load_file", [SMALL, "CHECKPOINT", "PHOTOS"]),
    "visualize_prototypes": ("loading.load_file", [SMALL, "CHECKPOINT", "PHOTOS"]),
    "visualize_retrieval": ("loading.load_file", [SMALL, "CHECKPOINT", "PHOTO", "PHOTO"]),
    "visualize_views": ("visualization.views.views_sheet", ["PHOTOS", "OUT.png"]),
}
# tool -> arguments that a user can mend, and what the sentence says
MISTAKES = {
    "benchmark": (["configs/benchmark/none.py"], "none.py"),
    "benchmark_gpu": (["--table", "nowhere"], "there is no result file nowhere"),
    "benchmark_pipeline": (["nowhere"], "nowhere is not a folder"),
    "benchmark_step": ([SMALL, "--cfg-options", "lr=1"], "did you mean optim_wrapper.optimizer.lr?"),
    "benchmark_table": ([PLAN, "--results", "nowhere"], "nowhere is no folder"),
    "convert_to_d2": (["nowhere.pth", "OUT.pkl"], "nowhere.pth"),
    "convert_to_mmdet": (["nowhere.pth", "OUT.pth"], "nowhere.pth"),
    "convert_to_mmseg": (["nowhere.pth", "OUT.pth"], "nowhere.pth"),
    "convert_to_timm": (["nowhere.pth", "OUT.pth"], "nowhere.pth"),
    "convert_to_torchvision": (["nowhere.pth", "OUT.pth"], "nowhere.pth"),
    "eval_pixel_retrieval": ([SMALL, "PHOTOS"], "SlotCon"),
    "eval_probe": (["CHECKPOINT", "--data", "nowhere"], "nowhere"),
    "eval_unsupervised_seg": ([SMALL, "CHECKPOINT", "--data", "nowhere"], "nowhere"),
    "import_official": (["nowhere.pth", "OUT.pth"], "nowhere.pth"),
    "make_demo_scenes": (["PHOTOS"], "PHOTOS"),
    "plot_run": (["nowhere"], "nowhere"),
    "test": ([SMALL, "CHECKPOINT"], "is no config of mmdet or mmseg"),
    "train": ([SMALL, "--photos", "nowhere"], "nowhere is neither a folder of photos nor a text file"),
    "train_d2": (["--config-file", "nowhere.yaml"], "nowhere.yaml"),
    "visualize_groups": ([SMALL, "nowhere.pth", "PHOTOS"], "there is no checkpoint nowhere.pth"),
    "visualize_prototypes": ([SMALL, "CHECKPOINT", "PHOTOS"], "is no whole checkpoint"),
    "visualize_retrieval": (["nowhere.py", "CHECKPOINT", "PHOTO", "PHOTO"], "there is no config nowhere.py"),
    "visualize_views": (["PHOTOS", "OUT.png", "--first", "99"], "there is no photo 99"),
}
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))


def planted(*_, **__):
    int("three")


@pytest.fixture
def run_tool(folder, tmp_path, monkeypatch, capsys):
    """Run a tool in this process; gives its status and what it wrote to stderr."""
    (tmp_path / "checkpoint.pth").write_bytes(b"no checkpoint")
    meant = {
        "PHOTOS": str(folder),
        "PHOTO": str(folder / "cats/01.png"),
        "CHECKPOINT": str(tmp_path / "checkpoint.pth"),
        **{f"OUT{suffix}": str(tmp_path / f"out{suffix}") for suffix in ("", ".png", ".pth", ".pkl")},
    }
    monkeypatch.chdir(ROOT)

    def run(tool: str, arguments: list[str]) -> tuple[int, str]:
        if tool == "train_d2":
            pytest.importorskip("detectron2")
        if tool == "test":
            pytest.importorskip("mmseg")
        words = [meant.get(word, word) for word in arguments]
        if tool == "train":
            words += ["--work-dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", [f"tools/{tool}.py", *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(f"tools/{tool}.py", run_name="__main__")
        return end.value.code, capsys.readouterr().err

    return run


def test_every_tool_is_here():
    assert TOOLS == sorted(BUGS) == sorted(MISTAKES)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_bug_keeps_its_traceback(tool, run_tool, monkeypatch):
    if tool == "train_d2":
        pytest.importorskip("detectron2")
    place, arguments = BUGS[tool]
    monkeypatch.setattr(f"slotcon_plugin.{place}", planted)
    status, stderr = run_tool(tool, arguments)
    assert status == 1, stderr
    assert "Traceback (most recent call last):" in stderr
    assert "in planted" in stderr
    assert stderr.endswith("ValueError: invalid literal for int() with base 10: 'three'\n")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_user_can_mend_is_a_sentence(tool, run_tool, folder):
    arguments, message = MISTAKES[tool]
    status, stderr = run_tool(tool, arguments)
    assert status == 2, stderr
    assert "Traceback" not in stderr
    said = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and message.replace("PHOTOS", str(folder)) in said[0], stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_options_that_are_not_there_are_wrong_use(tool, run_tool):
    status, stderr = run_tool(tool, ["--no-such-option"])
    assert (status, "Traceback" in stderr) == (2, False)
    assert stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("train", [SMALL, "--cfg-options", "max_epochs"]), ("train", [SMALL, "--cfg-options", "model=[1,(2]"])]
    + [("visualize_groups", [SMALL, "CHECKPOINT", "PHOTOS", "--device", device]) for device in ("cuda", "warp")],
)
def test_arguments_that_cannot_be_parsed_are_wrong_use(tool, arguments, run_tool):
    status, stderr = run_tool(tool, arguments)
    assert (status, "Traceback" in stderr) == (2, False)
    assert stderr.splitlines()[-1].startswith(f"{tool}.py: error: argument {arguments[-2]}: ")


def small_run(folder: Path, tmp_path: Path, **changes: str) -> list[str]:
    """Arguments of tools/train.py for a run of seconds on twelve photos."""
    options = {
        "train_dataloader.batch_size": "4",
        "train_dataloader.num_workers": "0",
        "train_dataloader.persistent_workers": "False",
        "train_dataloader.dataset.view_size": "64",
        "model.projector.hidden_channels": "16",
        "model.predictor.hidden_channels": "16",
        "model.grouping.num_prototypes": "8",
        "default_hooks.pictures": "None",
        "train_cfg.max_epochs": "1",
        **changes,
    }
    return [
        *(SMALL, "--photos", str(folder), "--work-dir", str(tmp_path / "run"), "--cfg-options"),
        *(f"{key}={value}" for key, value in options.items()),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_dataloader.batch_size": "64"},
            "12 photos do not fill one batch of 64 images per GPU; take more photos",
        ),
        ({"model.teacher_momentum": "2"}, "teacher_momentum must be in [0, 1]"),
        ({"optim_wrapper.dtype": "int8"}, "int8"),
    ],
)
def test_values_that_cannot_work_are_a_sentence(changes, message, folder, tmp_path, run_tool):
    status, stderr = run_tool("train", small_run(folder, tmp_path, **changes))
    assert status == 2, stderr
    assert message in stderr and "Traceback" not in stderr


@pytest.mark.slow
def test_a_run_shorter_than_its_warm_up_without_a_hook(folder, tmp_path):
    done = run_python("tools/train.py", *small_run(folder, tmp_path, warmup_epochs="5"), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "CosineAnnealingLR would begin after epoch 5, when the run of 1 is over" in done.stdout + done.stderr
    assert not list((tmp_path / "run").glob("*/vis_data/vis_image/*"))  # default_hooks.pictures=None


PLANTED_LOSS = """
from slotcon_plugin.models import SlotCon
asked, loss = [], SlotCon.loss
def planted(self, *batch):
    asked.append(1)
    return int("three") if len(asked) == 3 else loss(self, *batch)
SlotCon.loss = planted
"""


def run_with_planted_loss(command: list[str], tmp_path: Path) -> subprocess.CompletedProcess:
    """In processes whose SlotCon fails at its third step."""
    (tmp_path / "sitecustomize.py").write_text(PLANTED_LOSS)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "PYTHON": sys.executable}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def check_planted(done: subprocess.CompletedProcess, tmp_path: Path) -> None:
    assert done.returncode == 1, done.stderr
    (log,) = (tmp_path / "run").glob("*/*.log")
    for text in (done.stderr, log.read_text()):
        assert "Traceback (most recent call last):" in text
        assert "in planted" in text
        assert "ValueError: invalid literal for int() with base 10: 'three'" in text


def test_a_bug_in_a_loss_shows_its_traceback_on_the_console_and_in_the_runs_log(folder, tmp_path):
    check_planted(
        run_with_planted_loss([sys.executable, "tools/train.py", *small_run(folder, tmp_path)], tmp_path), tmp_path
    )


@pytest.mark.slow
def test_a_bug_in_a_loss_under_the_launcher(folder, tmp_path):
    config, *rest = small_run(folder, tmp_path, **{"train_dataloader.batch_size": "2"})
    done = run_with_planted_loss(["bash", "tools/dist_train.sh", config, "2", *rest], tmp_path)
    check_planted(done, tmp_path)


@pytest.mark.slow
def test_wrong_use_under_the_launcher_keeps_its_status(folder, tmp_path):
    config, *rest = small_run(folder, tmp_path, **{"train_dataloader.batch_size": "64"})
    done = run_with_planted_loss(["bash", "tools/dist_train.sh", config, "2", *rest], tmp_path)
    assert done.returncode == 2, done.stderr
    assert "12 photos do not fill one batch of 64 images per GPU on 2 GPUs" in done.stderr
    assert "Traceback" not in done.stderr
