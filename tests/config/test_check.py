"""Keys that nothing would read are refused, with the nearest that is read."""

import re

import pytest
from mmengine.config import Config

from slotcon_plugin.config import load_config
from slotcon_plugin.config.check import arguments, check_arguments
from slotcon_plugin.errors import UserError

SMALL = "configs/pretrain/slotcon_small.py"


@pytest.fixture(autouse=True)
def _in_repo(repo, monkeypatch):
    monkeypatch.chdir(repo)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", 0.1, "did you mean optim_wrapper.optimizer.lr? A key that is new and meant is written +lr=..."),
        ("optim_wraper.dtype", "float32", "did you mean optim_wrapper.dtype?"),
        ("defaut_hooks.pictures", None, "did you mean default_hooks.pictures?"),
        ("default_hooks.picturs", None, "did you mean default_hooks.pictures?"),
        ("train_dataloader.batchsize", 4, "did you mean train_dataloader.batch_size?"),
        ("model.grouping.num_prototype", 4, "did you mean model.grouping.num_prototypes?"),
        ("max_epochs", 4, "did you mean train_cfg.max_epochs?"),
        ("warmup_epoch", 4, "did you mean warmup_epochs?"),
        ("train_dataloader.dataset.source.root", "/x", "set photos.root instead"),
        ("param_scheduler.2.begin", 1, "param_scheduler has items 0 to 1, there is no item '2'"),
        ("param_scheduler.begin", 1, "there is no item 'begin'"),
        ("model", "SlotCon", " is a group of keys (type, "),
        ("model.backbone.depth.x", 1, "model.backbone.depth is a value (18), not a group of keys"),
        ("train_cfg.max_epochs", "ten", "expected a number such as 20, got 'ten'"),
    ],
)
def test_options_that_would_do_nothing_are_refused(key, value, message):
    with pytest.raises(UserError, match=f"^{re.escape(key)}.*{re.escape(message)}"):
        load_config(SMALL, {key: value})


@pytest.mark.parametrize(
    "options",
    [
        {"randomness.deterministic": True},
        {"train_dataloader.prefetch_factor": 4},
        {"default_hooks.checkpoint.save_last": False},  # CheckpointHook's own argument
        {"model.compile": True},  # BasePretrainer's, through SlotCon's **kwargs
        {"optim_wrapper.accumulative_counts": 4},  # OptimWrapper's
        {"model.center.momentum": 0.8, "model.center.type": "Center"},  # of the type that takes the place of Sinkhorn
        {"activation_checkpointing": ["student.backbone.layer1"]},
        {"load_from": "x.pth"},
        {"default_hooks.mine.type": "UnsupervisedSegHook", "default_hooks.mine.data": "x"},
        {"model.backbone.depth": 50, "train_cfg.max_epochs": 1, "train_dataloader.dataset.scale": (0.1, 1)},
        {"photos.root": "/x"},
        {"warmup_epochs": "${min_lr}"},
    ],
)
def test_options_that_somebody_reads_are_taken(options):
    assert load_config(SMALL, options)


def test_keys_are_those_of_the_type_that_the_options_choose():
    with pytest.raises(UserError, match=r"^model\.center\.momentun: .*did you mean model\.center\.momentum\?"):
        load_config(SMALL, {"model.center.type": "Center", "model.center.momentun": 0.8})
    with pytest.raises(UserError, match=r"^model\.center\.momentum: nothing in"):
        load_config(SMALL, {"model.center.momentum": 0.8})


def test_a_new_key_can_be_meant():
    cfg = load_config(SMALL, {"+lr": 0.1, "+model.note": "mine"})
    assert (cfg.lr, cfg.model.note) == (0.1, "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(model=dict(grouping=dict(prototypes=3))), "model.grouping.prototypes in the config: SemanticGrouping"),
        (dict(model=dict(student_temprature=1)), "did you mean student_temperature?"),
        (dict(default_hooks=dict(checkpoint=dict(intervall=3))), "CheckpointHook takes no 'intervall'"),
        (dict(train_dataloader=dict(num_worker=3)), "mmengine takes no 'num_worker'; did you mean num_workers?"),
        (dict(train_dataloader=dict(dataset=dict(viewsize=3))), "did you mean view_size?"),
        (dict(optim_wrapper=dict(optimizer=dict(learning_rate=3))), "AdamW takes no 'learning_rate'"),
        (dict(photos=dict(rot=3)), "ImageFolder takes no 'rot'; did you mean root?"),
    ],
)
def test_arguments_that_a_class_does_not_take_are_named(change, message, tmp_path, repo):
    (tmp_path / "config.py").write_text(
        f"_base_ = [{str(repo / SMALL)!r}]\n" + "\n".join(f"{key} = {value!r}" for key, value in change.items())
    )
    cfg = load_config(tmp_path / "config.py")
    with pytest.raises(UserError, match=re.escape(message)):
        check_arguments(cfg)


def test_arguments_follow_the_bases_of_a_class():
    class Base:
        def __init__(self, a, *, b=1):
            pass

    class Passing(Base):
        def __init__(self, c, **kwargs):
            pass

    class Anything:
        def __init__(self, **kwargs):
            pass

    class Elsewhere(Base):
        kwargs_for = "a library"

        def __init__(self, c, **kwargs):
            pass

    def function(x, y=1):
        pass

    assert arguments(Base) == ({"a", "b"}, True)
    assert arguments(Passing) == ({"a", "b", "c"}, True)
    assert arguments(Anything) == (set(), False)
    assert arguments(Elsewhere) == ({"a", "b", "c"}, False)
    assert arguments(function) == ({"x", "y"}, True)


def test_classes_of_a_framework_that_is_not_there_are_left_to_it():
    check_arguments(Config(dict(default_scope="slotcon_plugin", model=dict(type="nowhere.Net", types=1))))
