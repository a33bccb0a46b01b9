"""The commands of docs/continue.md in turn, made small, on demo scenes: from weights to a segmenter and exports."""

import runpy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from slotcon_plugin.convert import read_metadata
from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.results import read_result
from tests.processes import run_python

DOCS = runpy.run_path(str(Path(__file__).with_name("test_docs.py")))
ROOT, documented, split = DOCS["ROOT"], DOCS["documented"], DOCS["split"]
TITLE = "ImageNet, then VADeR on 8 photos"
LOADER = "train_dataloader.num_workers=0 train_dataloader.persistent_workers=False"
VIEWS = "train_dataloader.dataset.view_size=64"
SMALL = {
    "tools/train.py pretrain": f"--cfg-options train_cfg.max_epochs=2 train_dataloader.batch_size=4 {LOADER} {VIEWS}",
    "slotcon": "--epochs 1 --seeds 0 --neighbours 0",
    "tools/train.py transfer": "--cfg-options train_cfg.max_iters=2 train_cfg.val_interval=2 "
    "default_hooks.checkpoint.interval=2 train_dataloader.batch_size=2 --batch-mode scale-lr",
}


@pytest.mark.slow
def test_the_walk_through_runs(tmp_path):
    pytest.importorskip("mmseg")
    pytest.importorskip("detectron2")
    for name in ("tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    make_demo_scenes(tmp_path / "labelled", {"train": 8, "val": 2, "test": 2}, (160, 120), layout="camvid")
    (tmp_path / "my_photos").symlink_to("labelled/images/train")
    torch.manual_seed(0)
    save_file(timm.create_model("tf_efficientnet_lite0").state_dict(), tmp_path / "tf_efficientnet_lite0.safetensors")
    commands = [command for file, command in documented() if file == "docs/continue.md"]
    order = ["vader_continue", "evaluate work_dirs/continued", "fcn_lite0_camvid", "to_timm", "to_mmdet", "to_d2"]
    for part in order:
        command = next(command for command in commands if part in command)
        words = [str(tmp_path / "work_dirs/continued/iter_4.pth") if w == "CHECKPOINT" else w for w in split(command)]
        kind = {"vader_continue": " pretrain", "fcn_lite0_camvid": " transfer"}.get(part, "")
        program = ["-m", "slotcon_plugin"] if words[0] == "slotcon" else words[:1]
        done = run_python(*program, *words[1:], *SMALL.get(words[0] + kind, "").split(), cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    for result in ("probe/linear_checkpoint.json", "work_dirs/fcn_lite0_camvid/result.json"):
        told = read_result(tmp_path / result)
        assert (told["pretraining"], told["title"], told["init"]["title"]) == (TITLE, TITLE, "ImageNet")
    for file in ("continued.safetensors", "continued.pth", "continued.pkl"):
        meta = read_metadata(tmp_path / file)
        assert (meta["title"], meta["init"]["title"]) == (TITLE, "ImageNet")
