"""The wheel, installed without the checkout: its configs, its command, and the way from photos to figures."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHORT = [
    *("--cfg-options", "train_dataloader.batch_size=8", "auto_scale_lr.base_batch_size=8"),
    *("train_dataloader.num_workers=0", "train_dataloader.dataset.view_size=64"),
    *("model.projector.hidden_channels=64", "model.predictor.hidden_channels=64"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: a build leaves files in its folder, and takes up those of earlier ones."""
    place = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("slotcon_plugin", "configs", "tools", "requirements"):
        shutil.copytree(ROOT / name, place / "source" / name, ignore=leave)
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, place / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "-w", place, place / "source"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = place.glob("*.whl")
    return built


def test_the_wheel_holds_every_config_and_the_tools_once(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    configs = {
        str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.*") if path.suffix in (".py", ".yaml")
    }
    held = {name.removeprefix("slotcon_plugin/.mim/") for name in names if name.startswith("slotcon_plugin/.mim/")}
    assert configs <= held and "tools/train.py" in held and "tools/dist_train.sh" in held
    assert "tools/setup_env.sh" not in held and not any(name.startswith(("configs/", "tests/")) for name in names)
    assert len(names) == len(set(names)) and not any("__pycache__" in name for name in names)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel and, by a link, the packages that it needs; gives an empty folder's runner.

    Packages are linked one by one, so that an editable install of the checkout is not among them.
    """
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    python = place / "venv/bin/python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place / "venv")}))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "slotcon_plugin" not in path.name and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which may lead to the checkout
    done = subprocess.run(pip, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    empty = place / "empty"
    empty.mkdir()

    def run(*words: str) -> str:
        command = [python, *words[1:]] if words[0] == "python" else [place / "venv/bin/slotcon", *words]
        done = subprocess.run([str(word) for word in command], cwd=empty, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    run.folder = empty
    return run


@pytest.mark.slow
def test_from_photos_to_figures_from_an_empty_folder(installed):
    make = "from slotcon_plugin.demo_scenes import make_demo_scenes as make\n"
    installed("python", "-c", f"{make}make('scenes', {{'train': 16, 'val': 4}}, size=(96, 72))")
    photos = "scenes/images/train"
    installed("pretrain", photos, "--out", "runs/a", "--epochs", "1", *SHORT)
    installed("export", "runs/a", "backbone.pth", "--target", "mmseg")
    few = ["--epochs", "1", "--seeds", "0", "--neighbours", "0", "--input-size", "64", "96"]
    said = installed("evaluate", "runs/a", "scenes", "--out", "figures", *few)
    assert "pretrained" in said and "random" in said
    result = json.loads((installed.folder / "figures/linear_checkpoint.json").read_text())
    assert 0 < result["metrics"]["mIoU"] < 100
    assert "16 vectors of 512 of 16 photos" in installed(
        "embed", "runs/a", photos, "--out", "e.npz", "--short-side", "64"
    )
    # OpenMMLab's own way, as `mim train` starts it
    config = Path(installed("configs", "slotcon_small").strip())
    assert config.parts[-4:] == (".mim", "configs", "pretrain", "slotcon_small.py") and ROOT not in config.parents
    tool = config.parents[2] / "tools/train.py"
    installed(
        "python", tool, "slotcon_small", "--photos", photos, "--work-dir", "runs/b", *SHORT, "train_cfg.max_epochs=1"
    )
    assert list((installed.folder / "runs/b").glob("*.pth"))
    # a plan's steps are the tools of the package
    assert f"{tool.parent}/train.py {config.parent}/vader_demo.py" in installed("benchmark", "demo", "--dry-run")
    few = ["--layout", "camvid", "--splits", "train=2", "val=1", "test=1", "--size", "96", "72"]
    plan = f"_base_ = [{installed('configs', 'demo').strip()!r}]\ndata = dict(scenes=dict(demo_scenes={few}))\n"
    (installed.folder / "tiny.py").write_text(plan)
    assert "data/scenes: done" in installed("benchmark", "tiny.py", "--step", "data/scenes", "--gpus", "0")
