"""Configs are loaded, completed and refused as their keys say."""

import pytest
from mmengine.config import Config

from slotcon_plugin.config import load_config, read_config, resolve
from slotcon_plugin.config.find import shipped
from slotcon_plugin.errors import UserError

COCO = "configs/pretrain/slotcon_coco.py"


@pytest.fixture(autouse=True)
def _in_repo(repo, monkeypatch):
    monkeypatch.chdir(repo)


def schedules(cfg: Config) -> list[tuple]:
    return [(s["type"], s.get("begin", 0), s.get("end")) for s in cfg.param_scheduler]


def test_a_key_reaches_everything_that_is_made_of_it():
    cfg = load_config("configs/pretrain/slotcon_cocoplus.py", {"data_root": "/x y", "warmup_epochs": 2, "min_lr": 0.5})
    assert [(s.ann_file, s.root) for s in cfg.train_dataloader.dataset.source.sources] == [
        ("/x y/annotations/instances_train2017.json", "/x y/train2017"),
        ("/x y/annotations/image_info_unlabeled2017.json", "/x y/unlabeled2017"),
    ]
    assert schedules(cfg) == [("LinearLR", 0, 2), ("CosineAnnealingLR", 2, None)]
    assert cfg.param_scheduler[1].eta_min == 0.5


def test_keys_that_are_only_referred_to_are_gone_afterwards(tmp_path):
    """The copy in a work dir has no key that would do nothing."""
    cfg = load_config(COCO)
    assert not {"data_root", "photos", "warmup_epochs", "min_lr"} & cfg.keys()
    before = cfg.to_dict()
    resolve(cfg)
    assert cfg.to_dict() == before
    cfg.dump(tmp_path / "copy.py")
    assert load_config(tmp_path / "copy.py").to_dict() == before
    with pytest.raises(UserError, match=r"warmup_epochs: nothing in .*copy\.py has or reads this key"):
        load_config(tmp_path / "copy.py", {"warmup_epochs": 1})


def test_keys_that_mean_something_by_themselves_stay():
    cfg = load_config(COCO, {"+work_dir": "runs/a", "+default_hooks.logger.out_dir": "${work_dir}/logs"})
    assert (cfg.work_dir, cfg.default_hooks.logger.out_dir) == ("runs/a", "runs/a/logs")


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"a": '), ("a.yaml", "a: [1"), ("a.py", b"a = '\xff'")])
def test_broken_files_are_named(name, text, tmp_path):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=rf"{name} cannot be read"):
        read_config(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_epochs": 0}, [("CosineAnnealingLR", 0, None)]),
        ({"train_cfg.max_epochs": 1}, [("LinearLR", 0, 5)]),
        ({"train_cfg.max_epochs": 5}, [("LinearLR", 0, 5)]),
        ({"train_cfg.max_epochs": 6}, [("LinearLR", 0, 5), ("CosineAnnealingLR", 5, None)]),
    ],
)
def test_schedules_without_a_moment_of_their_own_are_left_out(options, expected):
    assert schedules(load_config(COCO, options)) == expected


def test_without_workers_none_persist():
    loader = load_config("configs/pretrain/slotcon_demo.py", {"train_dataloader.num_workers": 0}).train_dataloader
    assert (loader.num_workers, loader.persistent_workers) == (0, False)
    assert load_config("configs/pretrain/slotcon_demo.py").train_dataloader.persistent_workers


def test_without_workers_none_persist_in_any_loader():
    """In containers with little shared memory people set all of them to 0."""
    cfg = Config(
        {f"{part}_dataloader": dict(num_workers=0, persistent_workers=True) for part in ("train", "val", "test")}
    )
    resolve(cfg)
    assert [cfg[f"{part}_dataloader"].persistent_workers for part in ("train", "val", "test")] == [False] * 3


def test_hooks_are_switched_off_with_none():
    cfg = load_config("configs/pretrain/slotcon_demo.py", {"default_hooks.pictures": None, "default_hooks.timer": None})
    assert "pictures" not in cfg.default_hooks
    assert cfg.default_hooks.timer is None  # mmengine's own: it takes None, and would add it where it is not named


def test_references_that_lead_nowhere(tmp_path):
    with pytest.raises(UserError, match=r"a refers to \$\{b\}, but the config has no such key"):
        resolve(Config({"a": "${b}/x"}))
    with pytest.raises(UserError, match=r"b refers to \$\{a\}, which leads back to itself"):
        resolve(Config({"a": "${b}/x", "b": "${a}"}))


def test_references_keep_the_kind_of_what_they_refer_to():
    cfg = Config({"n": 3, "d": {"type": "A", "n": "${n}"}, "l": ["${d}", ("${n}", "n is ${n}")]})
    resolve(cfg)
    assert cfg.to_dict() == {"l": [{"type": "A", "n": 3}, (3, "n is 3")]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no config .*; `slotcon configs` lists"),
        ("a = (", "cannot be read"),
        ("_base_ = ['none.py']", "cannot be read"),
        ("_base_ = ['slotcon_plugin::pretrain/slotcon_small.py']", "`slotcon configs NAME --out FILE` writes a copy"),
        ("_base_ = ['one.py', 'two.py']", "does not fit its bases: Duplicate key"),
        ("_base_ = ['one.py']\na = dict(b=1)", "does not fit its bases"),
        ("optim_wraper = dict(dtype='float16')", "sets optim_wraper, which nothing reads; did you mean optim_wrapper?"),
        ("custom_imports = dict(imports=['not.there'])", "cannot be read"),
        ("a = b", "cannot be read: name 'b' is not defined"),
        ("_base_ = ['config.py']", "is its own base"),
        ("defaut_hooks = dict()", "did you mean default_hooks?"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "one.py").write_text("a = 1")
    (tmp_path / "two.py").write_text("a = 2")
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        read_config(path)


@pytest.mark.parametrize("name", ["Base-RCNN-FPN-SyncBN", "mask_rcnn_r50_fpn_1x_coco"])
def test_a_config_of_detectron2_is_told_its_tool(name):
    with pytest.raises(
        UserError, match=rf"a config of detectron2: python tools/train_d2.py --config-file .*{name}\.yaml"
    ):
        read_config(shipped() / f"configs/transfer/detectron2/{name}.yaml")


def test_variables_of_ones_own_are_no_mistyped_names(tmp_path):
    (tmp_path / "config.py").write_text("base_lr = 0.1\ntrain_pipeline = []\nmax_epochs = 3\nimage_size = 3\n")
    assert read_config(tmp_path / "config.py").base_lr == 0.1


def test_the_nearest_config_is_named():
    with pytest.raises(UserError, match=r"did you mean configs/pretrain/slotcon_coco.py\?"):
        read_config("configs/pretrain/slotcon_coc.py")


def test_a_bug_in_a_config_keeps_its_traceback(tmp_path):
    (tmp_path / "config.py").write_text("a = 1 / 0")
    with pytest.raises(ZeroDivisionError):
        read_config(tmp_path / "config.py")
