"""What is written, what the tools say, and that a failure leaves nothing behind."""

import hashlib
import os
import pickle
import pickletools
import runpy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import slotcon_plugin
from slotcon_plugin.convert import ConversionError, convert, read_checkpoint, read_metadata
from slotcon_plugin.convert.cli import run
from slotcon_plugin.convert.writers import TARGETS
from tests.processes import run_python

from .conftest import torchvision_file


def test_the_detectron2_file_is_plain_and_readable_by_any_numpy(source_file, tmp_path):
    out = tmp_path / "out.pkl"
    convert(source_file("slotcon", 18).path, out, "detectron2")
    used = {arg for op, arg, _ in pickletools.genops(out.read_bytes()) if op.name == "SHORT_BINUNICODE"}
    assert not any("multiarray" in text or "_core" in text for text in used)
    content = pickle.loads(out.read_bytes(), encoding="latin1")
    assert (content["__author__"], content["matching_heuristics"]) == ("slotcon_plugin", True)
    assert {type(value) for value in content["model"].values()} == {np.ndarray}
    content["model"]["stem.conv1.weight"][0] = 0  # detectron2 writes into what it reads


def test_metadata_say_where_the_weights_come_from(source_file, tmp_path):
    source, out = source_file("slotcon", 18), tmp_path / "out.pth"
    convert(source.path, out, "torchvision", branch="student")
    meta = read_metadata(out)
    assert meta["source_file"] == "checkpoint.bin"
    assert meta["source_sha256"] == hashlib.sha256(source.path.read_bytes()).hexdigest()
    assert (meta["kind"], meta["branch"], meta["fpn"]) == ("slotcon", "student", False)
    assert meta["network"] == {"name": "resnet18", "library": "torchvision", "options": {}}
    assert (meta["colour_order"], meta["stem"], meta["stride_in_1x1"]) == ("RGB", "7x7", False)
    assert meta["mean"] == [123.675, 116.28, 103.53]
    assert meta["std"] == [58.395, 57.12, 57.375]
    assert meta["tool_version"] == slotcon_plugin.__version__
    assert meta["target"] == "torchvision"
    assert meta["proof"]["framework"].startswith("torchvision 0.")


def test_backbone_hash_follows_the_weights_not_the_file(source_file):
    hashes = {
        (name, branch): read_checkpoint(source_file(name, 18).path, branch=branch).meta["backbone_sha256"]
        for name in ("slotcon", "moco_v2", "pixpro")
        for branch in ("student", "teacher")
    }
    assert len({value for (_, branch), value in hashes.items() if branch == "student"}) == 1
    assert len(set(hashes.values())) == 2


def test_a_failing_write_leaves_the_old_file_and_no_other(source_file, tmp_path, monkeypatch):
    out = tmp_path / "out.pth"
    out.write_bytes(b"old")

    def full_disk(tensors, meta, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setitem(TARGETS, "torchvision", replace(TARGETS["torchvision"], save=full_disk))
    with pytest.raises(ConversionError, match=r"cannot write .*out\.pth: No space left"):
        convert(source_file("slotcon", 18).path, out, "torchvision", overwrite=True)
    assert out.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.pth"]


def test_nothing_that_is_there_is_lost(tmp_path):
    source = torchvision_file(tmp_path / "source.pth")
    was = source.read_bytes()
    (tmp_path / "hard.pth").hardlink_to(source)
    (tmp_path / "soft.pth").symlink_to(source)
    for same in ("source.pth", "hard.pth", "soft.pth", "../" + tmp_path.name + "/source.pth"):
        with pytest.raises(ConversionError, match="is the checkpoint that is to be read"):
            convert(source, tmp_path / same, "torchvision", overwrite=True)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "iter_7.pth").write_bytes(was)
    with pytest.raises(ConversionError, match="is the checkpoint that is to be read"):  # the newest of its work dir
        convert(run_dir, run_dir / "iter_7.pth", "torchvision", overwrite=True)
    (tmp_path / "nowhere.pth").symlink_to(tmp_path / "absent")
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    for special in ("nowhere.pth", "folder.pth", "pipe.pth"):
        with pytest.raises(ConversionError, match="is a link, a folder or a device"):
            convert(source, tmp_path / special, "torchvision", overwrite=True)
    (tmp_path / "old.pth").write_bytes(b"old")
    with pytest.raises(ConversionError, match=r"old\.pth exists: give another name, or --overwrite"):
        convert(source, tmp_path / "old.pth", "torchvision")
    assert (source.read_bytes(), (tmp_path / "old.pth").read_bytes()) == (was, b"old")
    run("torchvision", "", [str(source), str(tmp_path / "old.pth"), "--overwrite"])
    assert read_metadata(tmp_path / "old.pth")["source_file"] == "source.pth"


@pytest.mark.parametrize("name", ["x" * 250 + ".pth", "/proc/out.pth", "/proc/out.safetensors"])
def test_where_nothing_can_be_written_is_said_so(name, tmp_path):
    with pytest.raises(ConversionError, match="cannot write"):
        convert(torchvision_file(tmp_path / "x.pth"), tmp_path / name, "torchvision")


@pytest.mark.parametrize(
    ("target", "suffix"), [("torchvision", ".pth"), ("torchvision", ".safetensors"), ("d2", ".pkl")]
)
def test_a_full_disk_is_said_so(target, suffix, repo, tmp_path):
    """Stood in for by a limit on the size of files."""
    source = torchvision_file(tmp_path / "x.pth")
    tool = f"ulimit -f 1000; exec {sys.executable} tools/convert_to_{target}.py {source} {tmp_path}/out{suffix}"
    done = subprocess.run(["bash", "-c", tool], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"error: cannot write {tmp_path}/out{suffix}: " in done.stderr
    assert "File too large" in done.stderr and "enforce fail" not in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["x.pth"]


@pytest.mark.parametrize(("target", "name"), [("detectron2", "x.pth"), ("mmdet", "x.pkl"), ("torchvision", "x")])
def test_a_suffix_that_the_framework_would_misread_is_refused(target, name, source_file, tmp_path):
    with pytest.raises(ConversionError, match="OUT must end in"):
        convert(source_file("slotcon", 18).path, tmp_path / name, target)


@pytest.mark.parametrize(
    ("target", "suffix", "config", "message"),
    [
        ("mmdet", ".pth", "none.py", "there is no transfer config none.py"),
        ("detectron2", ".pkl", "none.yaml", "there is no transfer config none.yaml"),
        ("mmseg", ".pth", "README.md", "README.md cannot be read as a transfer config: Only py/yml/yaml/json"),
        ("detectron2", ".pkl", "README.md", "README.md cannot be read as a transfer config"),
        ("detectron2", ".pkl", "configs/pretrain/slotcon_demo.py", "cannot be read as a transfer config"),
        ("mmdet", ".pth", "configs/pretrain/slotcon_demo.py", "wants a TorchvisionResNet, which mmdet does not have"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(target, suffix, config, message, source_file, tmp_path):
    pytest.importorskip(target)
    with pytest.raises(ConversionError, match=message):
        convert(source_file("slotcon", 18).path, tmp_path / f"x{suffix}", target, config=config)
    assert not list(tmp_path.glob("x*"))


def test_the_tool_says_what_it_did_and_fails_with_two(repo, source_file, tmp_path):
    def tool(*arguments):
        return run_python("tools/convert_to_torchvision.py", *arguments, cwd=repo)

    done = tool(source_file("slotcon", 18).path, tmp_path / "out.safetensors")
    assert done.returncode == 0, done.stderr
    assert "ResNet-18" in done.stdout
    assert "largest relative error" in done.stdout
    (tmp_path / "any").touch()
    assert (tmp_path / "out.safetensors").stat().st_mode == (tmp_path / "any").stat().st_mode

    failed = tool(tmp_path / "absent.pth", tmp_path / "other.pth")
    assert failed.returncode == 2
    assert "no such file" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "other.pth").exists()


@pytest.mark.parametrize("target", ["d2", "mmdet", "mmseg", "torchvision"])
def test_help_teaches(target, repo, capsys):
    tool = runpy.run_path(str(repo / "tools" / f"convert_to_{target}.py"))
    with pytest.raises(SystemExit) as left:
        run({"d2": "detectron2"}.get(target, target), tool["__doc__"], ["--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert f"python tools/convert_to_{target}.py" in said
    assert "known kinds:" in said
