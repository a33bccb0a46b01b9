"""What a probe measures and what it is measured beside: arms, their pixels and strides, their result files."""

import hashlib
import json
from dataclasses import replace

import pytest
import timm
import torch
from mmengine.config import Config
from torch import nn

from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import open_labelled_set, run
from slotcon_plugin.evaluation.arms import build_untrained, load_backbone, load_probe_arms, sha256_of_backbone
from slotcon_plugin.evaluation.run import probe_arms, probe_checkpoint, probe_recipe
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.photos import collect_photos
from slotcon_plugin.results import describe_config, read_result


def test_probe_arms_and_their_result_files(checkpoint, demo, tmp_path):
    photos = collect_photos([demo / "images"], limit=4)
    assert len(photos) == 4
    arms = load_probe_arms(checkpoint, calibration_photos=photos, input_size=(32, 64))
    assert list(arms) == ["checkpoint", "random", "random_bn"]
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.testing.assert_close(
        arms["checkpoint"][0].backbone.net.conv1.weight, state["teacher.backbone.conv1.weight"].contiguous()
    )
    a, b = arms["random"][0].backbone.net, arms["random_bn"][0].backbone.net
    assert torch.equal(a.layer4[1].conv2.weight, b.layer4[1].conv2.weight), "differ in statistics alone"
    assert not torch.equal(a.bn1.running_mean, b.bn1.running_mean)
    assert (a.layer1[0].bn2.weight == 1).all(), "not the zero-initialised residuals that pretraining starts with"

    sets = [open_labelled_set(demo, split) for split in ("train", "val")]
    results = probe_arms(
        arms,
        *sets,
        pretraining="tiny",
        out_dir=tmp_path,
        input_size=(32, 64),
        epochs=1,
        seeds=(7,),
        seed=5,
        neighbours=2,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{probe}_{arm}.json" for probe in ("linear", "knn") for arm in arms
    )
    stored = read_result(tmp_path / "linear_checkpoint.json")
    assert stored["metrics"]["mIoU"] == results["checkpoint"]["linear"].miou[0]
    assert (stored["pretraining"], stored["seed"]) == ("tiny", 5)
    assert stored["backbone_sha256"] == arms["checkpoint"][1]
    assert stored["map_sizes"] == [[8, 16], [4, 8], [2, 4], [1, 2]], "strides, which a file and its run may differ in"
    assert read_result(tmp_path / "knn_random_bn.json")["pretraining"] == "random_bn"
    assert json.loads((tmp_path / "knn_random.json").read_text())["backbone_sha256"] is None


def test_a_folder_is_of_one_checkpoint_one_data_set_and_the_last_probe(checkpoint, demo, tmp_path, monkeypatch):
    """A table would make one row of all that it holds."""
    data, photos = open_labelled_set(demo, "val"), demo / "images/val"
    tiny = dict(input_size=(32, 64), epochs=1, seeds=(0,), out_dir=tmp_path)
    probe_checkpoint(checkpoint, data, data, neighbours=2, bn_calibrate=photos, **tiny)
    (tmp_path / "linear_random_bn.json").write_text("cut sho")  # not known to be a result: left alone
    former = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as stopped:
        measured = iter([run.probe_backbone])
        stopped.setattr(run, "probe_backbone", lambda *a, **k: next(measured)(*a, **k))  # the second arm's fails
        with pytest.raises(StopIteration):
            probe_checkpoint(checkpoint, data, data, neighbours=0, **tiny)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == former
    probe_checkpoint(checkpoint, data, data, neighbours=0, **tiny)
    left = {"linear_checkpoint.json", "linear_random.json", "linear_random_bn.json"}
    assert {path.name for path in tmp_path.iterdir()} == left

    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"linear_checkpoint\.json is of other weights \(slotcon\): give another"):
        probe_checkpoint(checkpoint, data, data, branch="student", **tiny)
    other = replace(data, name="other/val")
    with pytest.raises(
        UserError, match=rf"is of other data \(linear_probe_{data.task}, and now it is linear_probe_other_val"
    ):
        probe_checkpoint(checkpoint, other, other, **tiny)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize(("by_config", "given", "name"), [(0, None, "slotcon"), (1, None, "slotcon"), (0, "a", "a")])
def test_a_checkpoint_is_called_by_its_method(by_config, given, name, config, checkpoint, demo, tmp_path):
    data = open_labelled_set(demo, "val")
    tiny = dict(input_size=(32, 64), epochs=1, seeds=(0,), neighbours=0, out_dir=tmp_path)
    probe_checkpoint(checkpoint, data, data, config=config if by_config else None, pretraining=given, **tiny)
    assert read_result(tmp_path / "linear_checkpoint.json")["pretraining"] == name


def test_weights_of_which_nothing_is_known_are_called_pretrained(demo, tmp_path):
    data = open_labelled_set(demo, "val")
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.pth")
    tiny = dict(input_size=(32, 64), epochs=1, seeds=(0,), neighbours=0, out_dir=tmp_path, network="resnet10t")
    probe_checkpoint(tmp_path / "weights.pth", data, data, **tiny)
    assert read_result(tmp_path / "linear_checkpoint.json")["pretraining"] == "pretrained"


def test_settings_that_nobody_gives_are_told_as_well(repo):
    """Figures of the script, which once gave all of them, of the command and of a plan share a row."""
    published = read_result(repo / "docs/results/small_real/probe/slotcon-seed0/linear_checkpoint.json")
    given = dict(input_size=(240, 320), stages=(-2, -1), epochs=15, learning_rate=2e-3, batch_size=16, seeds=(0, 1))
    for settings in ({}, given, {"device": "cuda"}):
        text = describe_config(probe_recipe(neighbours=0, **settings))[1]
        assert hashlib.sha256(text.encode()).hexdigest() == published["config_sha256"]
    assert probe_recipe().to_dict() == given | {"neighbours": 20}
    assert probe_recipe(epochs=3, bank_size=9, output_stride=16).to_dict() == given | {
        **dict(neighbours=20, epochs=3, bank_size=9, output_stride=16)
    }


@pytest.mark.parametrize("by_config", [False, True])
def test_the_branch_that_is_asked_for_is_probed(by_config, config, checkpoint):
    model, images = load_pretrainer(config, checkpoint), torch.randn(1, 3, 64, 64)
    recipe = config if by_config else None
    for asked, branch in ((None, "teacher"), ("teacher", "teacher"), ("student", "student")):
        loaded = load_backbone(checkpoint, recipe, branch=asked)
        assert loaded.sha256 == sha256_of_backbone(model.branch(branch)["backbone"])
        with torch.no_grad():
            maps = loaded.backbone.eval()(images)[-1], model.extract_features(images, branch)[-1]
        torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-3)


def test_a_run_that_transfers_its_student_is_probed_by_it(config, checkpoint, tmp_path):
    recipe = tmp_path / "student.py"
    recipe.write_text(config.read_text() + "\nmodel['transfer_branch'] = 'student'\n")
    model = load_pretrainer(config, checkpoint)
    assert load_backbone(checkpoint, recipe).sha256 == sha256_of_backbone(model.student["backbone"])
    assert load_backbone(checkpoint, recipe, branch="teacher").sha256 == sha256_of_backbone(model.teacher["backbone"])


def test_probe_at_the_stride_that_a_checkpoint_was_pretrained_at(config, checkpoint, tmp_path, demo):
    """The last stage is dilated, in the random arm too; results of different strides are told apart."""
    images = torch.zeros(1, 3, 64, 64)
    for stride in (16, 32):
        arms = load_probe_arms(checkpoint, output_stride=stride)
        assert {arm(images)[-1].shape[-1] for arm, _ in arms.values()} == {64 // stride}
        assert arms["checkpoint"][1] == load_probe_arms(checkpoint)["checkpoint"][1]
        data = open_labelled_set(demo, "val")
        settings = {"input_size": (32, 64), "epochs": 1, "seeds": (0,), "neighbours": 0, "output_stride": stride}
        probe_arms(arms, data, data, pretraining="tiny", out_dir=tmp_path / str(stride), **settings)
    one, other = (read_result(tmp_path / stride / "linear_checkpoint.json")["config_sha256"] for stride in ("16", "32"))
    assert one != other
    with pytest.raises(UserError, match="leave one of them out"):
        load_probe_arms(checkpoint, config, output_stride=16)


def test_probe_arms_by_config(config, checkpoint):
    arms = load_probe_arms(checkpoint, config)
    assert arms["checkpoint"][1] == load_probe_arms(checkpoint)["checkpoint"][1], "one hash for one backbone"
    assert (arms["random"][0].backbone.layer1[0].bn2.weight == 1).all()
    assert (build_untrained(config, 0).teacher["backbone"].layer1[0].bn2.weight == 0).all()


@pytest.mark.parametrize(
    "backbone", [dict(type="TorchvisionResNet", depth=18), dict(type="TimmBackbone", name="resnet18")]
)
def test_a_random_arm_is_no_weaker_than_it_need_be_where_the_config_does_not_say(backbone, config, tmp_path):
    cfg = Config.fromfile(config)
    cfg.model.backbone = backbone
    cfg.dump(tmp_path / "silent.py")
    zeros = []
    for zero_init in (True, False):
        model = build_untrained(tmp_path / "silent.py", 0, zero_init_residual=zero_init)
        norms = [m for m in model.teacher["backbone"].modules() if isinstance(m, nn.BatchNorm2d)]
        zeros.append(sum(not norm.weight.any() for norm in norms))
    assert zeros == [8, 0]


def test_nor_is_that_of_a_network_of_timms_without_a_config(tmp_path):
    torch.save(timm.create_model("resnet18d").state_dict(), tmp_path / "weights.pth")
    random = load_probe_arms(tmp_path / "weights.pth", network="resnet18d")["random"][0]
    assert all(m.weight.any() for m in random.modules() if isinstance(m, nn.BatchNorm2d))
