"""Configs by name, in a checkout; tests/test_wheel.py does the same in an installed package."""

import pytest

from slotcon_plugin.config import find_config, list_configs, load_config, shipped, shipped_file, shipped_tool
from slotcon_plugin.config.find import names_pretraining
from slotcon_plugin.errors import UserError


@pytest.mark.parametrize("name", ["slotcon_small", "slotcon_small.py", "configs/pretrain/slotcon_small.py"])
def test_a_config_is_found_from_any_folder(name, repo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == repo / "configs/pretrain/slotcon_small.py"
    assert load_config(name).model.type == "SlotCon"


def test_a_file_here_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slotcon_small.py").write_text("a = 1\n")
    assert load_config("slotcon_small.py").to_dict() == {"a": 1}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("slotcon_smal", "did you mean slotcon_small?"),
        ("configs/pretrain/slotcon_cocoo.py", "did you mean configs/pretrain/slotcon_coco.py?"),
        ("elsewhere/other.py", "`slotcon configs` lists those that come with the package"),
        ("slotcon_r50", "`slotcon configs` lists"),  # a part of others
    ],
)
def test_an_unknown_name_is_refused_with_a_hint(name, hint, repo, monkeypatch):
    monkeypatch.chdir(repo)
    with pytest.raises(UserError) as refused:
        find_config(name)
    assert f"there is no config {name}" in str(refused.value) and hint in str(refused.value)


def test_a_word_may_mean_a_config_or_something_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [names_pretraining(word) for word in ("slotcon_small", "my.py", "photos", "runs/a")] == [
        True,
        True,
        False,
        False,
    ]
    (tmp_path / "slotcon_small").mkdir()
    assert not names_pretraining("slotcon_small")


def test_a_name_of_two_is_refused(repo, monkeypatch, tmp_path):
    for kind in ("pretrain", "benchmark"):
        (tmp_path / "configs" / kind).mkdir(parents=True)
        (tmp_path / "configs" / kind / "demo.py").touch()
    monkeypatch.setattr("slotcon_plugin.config.find.shipped", lambda: tmp_path)
    with pytest.raises(UserError, match=r"say configs/benchmark/demo\.py or configs/pretrain/demo\.py"):
        find_config("demo")


def test_mim_finds_each_recipe_by_its_file_name():
    """It walks the package, parts in ``_base_`` too, and refuses a name that it meets twice."""
    files = [path for path in (shipped() / "configs").rglob("*.py") if path.parts[-2] != "benchmark"]
    names = [path.name for path in files]
    assert [path for path in files if path.parent.name != "_base_" and names.count(path.name) > 1] == []


def test_every_config_says_in_a_line_what_it_is_for():
    everything = list_configs()
    files = [path for path in (shipped() / "configs").rglob("*.py") if path.parent.name != "_base_"]
    assert len(everything) == len(files), "two configs have one name"
    assert all(len(line) > 15 for line in everything.values()), everything
    pretraining = list_configs("pretrain")
    assert pretraining["slotcon_coco"] == "SlotCon on COCO train2017: 800 epochs, batch 512, as in the paper."
    assert list_configs("transfer")["fcn_r18_camvid"] == "A small segmenter on CamVid (11 classes, index 11 = ignore)"
    with pytest.raises(UserError, match="kinds of configs are benchmark, pretrain, transfer, got 'train'"):
        list_configs("train")


def test_tools_are_the_packages_own_in_a_checkout_of_others(repo, tmp_path, monkeypatch):
    for folder in ("tools", "configs/pretrain"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tools/train.py").touch()
    (tmp_path / "configs/pretrain/slotcon_small.py").touch()
    monkeypatch.chdir(tmp_path)
    assert shipped_tool("tools/train.py") == str(shipped() / "tools/train.py")
    assert shipped_file("configs/pretrain/slotcon_small.py") == "configs/pretrain/slotcon_small.py"
    monkeypatch.chdir(repo)
    assert shipped_tool("tools/train.py") == "tools/train.py"
