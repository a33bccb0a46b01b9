"""Result files: what is written is read back, and what is not a result is refused with its reason."""

import hashlib
import json

import pytest
from mmengine.config import Config

from slotcon_plugin.results import LOADED, describe_config, read_result, write_result

HASH = "ab" * 32


def facts(**changes):
    given = {
        "task": "mmseg_camvid_fcn",
        "metrics": {"mIoU": 22.5},
        "pretraining": "slotcon",
        "config": Config({"model": {"type": "A"}}, cfg_text="-", filename="/somewhere/configs/transfer/mmseg/a.py"),
        "backbone_sha256": HASH,
        "seed": 3,
        "wall_time_s": 12.3456,
    }
    return given | changes


def test_round_trip_has_every_field_of_the_schema(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tools/train.py", "a b.py", "--seed=3"])
    path = write_result(tmp_path / "deep" / "r.json", **facts(budget="1x"))
    result = read_result(path)
    versions = result.pop("versions")
    config_text = json.dumps({"model": {"type": "A"}}, sort_keys=True)
    assert result == {
        "schema": 1,
        "task": "mmseg_camvid_fcn",
        "metrics": {"mIoU": 22.5},
        "pretraining": "slotcon",
        "seed": 3,
        "config": "configs/transfer/mmseg/a.py",
        "config_sha256": hashlib.sha256(config_text.encode()).hexdigest(),
        "backbone_sha256": HASH,
        "wall_time_s": 12.346,
        "command": "python tools/train.py 'a b.py' --seed=3",
        "budget": "1x",
    }
    import torch

    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "python" in versions
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]  # no temporary file stays behind


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            "tools/train.py a.py --work-dir w --launcher pytorch --x 1",
            "bash tools/dist_train.sh a.py 4 --work-dir w --x 1",
        ),
        ("slotcon finetune m/ --gpus 4 --launcher pytorch", "python slotcon finetune m/ --gpus 4"),
        ("tools/train.py a.py --launcher slurm", "python tools/train.py a.py --launcher slurm"),
        ("tools/eval_probe.py run", "python tools/eval_probe.py run"),
    ],
)
def test_the_command_is_what_was_typed_and_not_what_a_launcher_made_of_it(words, command, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", words.split())
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert read_result(write_result(tmp_path / "r.json", **facts()))["command"] == command


def test_a_folder_gets_the_standard_name(tmp_path):
    assert write_result(tmp_path, **facts(backbone_sha256=None)).name == "result.json"
    assert read_result(tmp_path / "result.json")["backbone_sha256"] is None


def test_config_hash_follows_content_not_place(tmp_path):
    config = Config({"lr": 0.1, "work_dir": "a", "randomness": {"seed": 1}}, cfg_text="-", filename="x.py")
    same = Config({"work_dir": "b", "lr": 0.1}, cfg_text="-", filename="y.py")
    other = Config({"lr": 0.2, "work_dir": "a"}, cfg_text="-", filename="x.py")
    assert describe_config(config)[1] == describe_config(same)[1]
    assert describe_config(config)[1] != describe_config(other)[1]
    loaded = Config({"lr": 0.1, "load_from": "a.pth"}, cfg_text="-", filename="x.py")
    assert describe_config(loaded)[1] != describe_config(config)[1], "begins with a whole model"
    resumed = Config({"lr": 0.1, "load_from": "a.pth", "resume": True}, cfg_text="-", filename="x.py")
    assert describe_config(resumed)[1] == describe_config(config)[1]
    file = tmp_path / "c.yaml"
    file.write_text("LR: 1\n")
    assert describe_config(file) == (str(file), "LR: 1\n")


def test_a_config_of_detectron2s_is_the_same_wherever_its_weights_lie():
    config_of_its_own = pytest.importorskip("detectron2.config").get_cfg
    texts = []
    for weights in ("", "a/backbone.pth", "b/backbone.pth", LOADED):
        cfg = config_of_its_own()
        cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = weights, f"runs/{weights}"
        texts.append(describe_config(cfg)[1])
    assert texts[0] == texts[1] == texts[2] != texts[3], "a whole detector is another beginning"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {}}, "'metrics' is empty"),
        ({"metrics": {"AP": float("nan")}}, "metric 'AP' must be a finite number, got nan"),
        ({"task": 5}, "'task' must be str, got 5"),
        ({"schema": 2}, r"may not be named \['schema'\]"),
        ({"config": 5}, "config must be a path"),
    ],
)
def test_wrong_facts_are_refused_and_nothing_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write_result(tmp_path / "r.json", **facts(**changes))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 1, "task"', "r.json is not JSON"),
        ("[1, 2]", "not a result file of schema 1 .found: list"),
        ('{"mIoU": 3}', "not a result file of schema 1 .found: None"),
        ('{"schema": 1, "task": "t"}', "r.json has no field 'metrics'"),
    ],
)
def test_foreign_files_are_named(tmp_path, content, message):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_result(tmp_path / "r.json")


def test_a_failed_write_leaves_the_old_result(tmp_path):
    path = write_result(tmp_path / "r.json", **facts())
    with pytest.raises(ValueError, match="finite"):
        write_result(path, **facts(metrics={"mIoU": float("inf")}))
    assert read_result(path)["metrics"] == {"mIoU": 22.5}
