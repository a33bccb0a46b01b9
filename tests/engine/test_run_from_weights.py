"""Runs from --init: heads first, resumed bit for bit without the file; what their checkpoints say of themselves."""

import shutil

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from PIL import Image
from torchvision.models import resnet18

from slotcon_plugin.apis import pretrain
from slotcon_plugin.checkpoints.safe_load import load_file
from slotcon_plugin.config import load_config
from slotcon_plugin.convert import convert, read_metadata
from slotcon_plugin.engine.work_dir import Claim
from slotcon_plugin.errors import UserError
from slotcon_plugin.loading import load_pretrainer
from tests.processes import run_python

LITE = {"type": "TimmBackbone", "name": "test_efficientnet", "output_stride": 16}
RESNET = {"type": "TorchvisionResNet", "depth": 18, "stride": 16}
SMALL = {
    "train_cfg.max_epochs": 3,
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "train_dataloader.dataset.view_size": 64,
    "default_hooks.checkpoint.interval": 1,
    "default_hooks.checkpoint.max_keep_ckpts": 10,
    "visualizer.vis_backends": [dict(type="LocalVisBackend")],
}
SMALL_HEADS = {
    "slotcon": {"projector.hidden_channels": 16, "predictor.hidden_channels": 16, "grouping.num_prototypes": 8},
    "vader": {"decoder.fpn_channels": 8, "decoder.channels": 8, "queue_size": 300},
    "densecl": {"projector.hidden_channels": 16, "dense_projector.hidden_channels": 16, "queue_size": 10},
}
STEPS = 6  # 8 photos in batches of 4, three epochs


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (72, 96, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def weights(tmp_path):
    """A file of each network, with statistics as after training."""
    torch.manual_seed(1)
    files = {}
    for name, network in (("lite", timm.create_model(LITE["name"])), ("resnet", resnet18())):
        for value in network.state_dict().values():
            if value.ndim == 1:
                value.copy_(torch.rand_like(value) / 2 + 0.75)
        files[name] = tmp_path / f"{name}.pth"
        torch.save(network.state_dict(), files[name])
    return files


@pytest.fixture
def config(repo, tmp_path, photos):
    def build(method, backbone, work_dir, init=None, share=0.5, **more):
        name = f"{method}_continue" if method != "densecl" else "densecl_small"
        options = {f"model.{key}": value for key, value in SMALL_HEADS[method].items()}
        cfg = load_config(repo / f"configs/pretrain/{name}.py", {**SMALL, **options, "data_root": str(photos), **more})
        cfg.model.backbone = dict(backbone)
        cfg.optim_wrapper.constructor = "PartOptimWrapperConstructor"
        cfg.optim_wrapper.paramwise_cfg = {"custom_keys": {"student.backbone": {"layer_decay": 0.5}}}
        cfg.default_hooks.heads_first = {"type": "HeadsFirstHook", "share": share}
        cfg.init = init
        cfg.work_dir, cfg.experiment_name = str(tmp_path / work_dir), f"{tmp_path.name}-{work_dir}"
        return cfg

    return build


def backbone_of(path, branch="student"):
    state = torch.load(path, weights_only=False)["state_dict"]
    prefix = f"{branch}.backbone."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "network"),
    [("slotcon", "lite"), ("vader", "lite"), ("densecl", "resnet"), ("vader", "resnet")],
)
def test_run_is_resumed_bit_for_bit_and_says_where_it_comes_from(method, network, config, weights, tmp_path):
    backbone = LITE if network == "lite" else RESNET
    file = weights[network]
    mean = [10.0, 20.0, 31.3]  # of no library
    init = {"file": str(file), "title": "ImageNet", "mean": mean, "std": [51.0, 52.0, 53.0], "colour_order": "RGB"}
    pretrain(config(method, backbone, "straight", init))

    given = {("model." if network == "lite" else "") + k: v for k, v in torch.load(file).items()}
    for branch in ("student", "teacher"):
        held = backbone_of(tmp_path / "straight/iter_3.pth", branch)
        assert all(torch.equal(value, given[key]) for key, value in held.items())
        moved = backbone_of(tmp_path / f"straight/iter_{STEPS}.pth", branch)
        means = [key for key in moved if key.endswith("bn1.running_mean")]
        assert means and not any(torch.equal(moved[key], given[key]) for key in means)
    heads = [torch.load(tmp_path / f"straight/iter_{i}.pth", weights_only=False)["state_dict"] for i in (1, 3)]
    changed = {k for k, v in heads[0].items() if k.startswith("student.") and not torch.equal(v, heads[1][k])}
    assert changed and not any("backbone" in k for k in changed)

    file.unlink()
    for start in (2, 4):  # in the heads' phase and after it
        name = f"resumed{start}"
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / f"straight/iter_{start}.pth", tmp_path / name)
        (tmp_path / name / "run.json").write_bytes((tmp_path / "straight/run.json").read_bytes())
        at_the_end = {"default_hooks.checkpoint.interval": STEPS}
        pretrain(config(method, backbone, name, **at_the_end), resume=True)  # the checkpoint knows what it started from
        assert "Changed since" not in "".join(log.read_text() for log in (tmp_path / name).rglob("*.log"))
        assert Config.fromfile(next((tmp_path / name).glob("*.py"))).model.data_preprocessor.mean == pytest.approx(
            [value / 255 for value in mean]
        )
    ends = [load_file(tmp_path / name / f"iter_{STEPS}.pth") for name in ("straight", "resumed2", "resumed4")]
    for resumed in ends[1:]:
        assert ends[0]["state_dict"].keys() == resumed["state_dict"].keys()
        for key, value in ends[0]["state_dict"].items():
            assert torch.equal(value, resumed["state_dict"][key]), key

        told = resumed["pretraining"]
        assert (told["photos"], told["init"]["title"], told["init"]["file"]) == (8, "ImageNet", f"{network}.pth")
        assert told["mean"] == pytest.approx(mean, abs=1e-3)

    model = load_pretrainer(config(method, backbone, "straight"), tmp_path / f"straight/iter_{STEPS}.pth")
    assert model.data_preprocessor.mean.flatten() == pytest.approx([m / 255 for m in mean], abs=1e-5)
    target = "timm" if network == "lite" else "torchvision"
    convert(tmp_path / f"straight/iter_{STEPS}.pth", tmp_path / "out.pth", target)
    meta = read_metadata(tmp_path / "out.pth")
    assert meta["title"] == f"ImageNet, then {model.method.title} on 8 photos"
    assert meta["init"]["sha256"] == told["init"]["sha256"]
    assert meta["mean"] == pytest.approx(mean, abs=1e-3)


def test_a_config_that_continues_says_what_it_needs(repo, photos, tmp_path, weights):
    """Status 2, a sentence, and a work dir that the next try can use."""
    broken = tmp_path / "half.pth"
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({k: v for k, v in state.items() if "blocks.3" not in k}, broken)
    work_dir = tmp_path / "run"
    command = ["tools/train.py", "configs/pretrain/vader_continue.py", "--photos", photos, "--work-dir", work_dir]
    for more, said in (
        ([], "this config starts from weights: give them, --init FILE"),
        (["--init", str(tmp_path / "none.pth")], "none.pth"),
        (["--init", str(broken)], "blocks.3"),
        (["--init", str(weights["resnet"])], "holds no timm's tf_efficientnet_lite0"),
    ):
        done = run_python(*command, *more, cwd=repo)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert not work_dir.exists()


def test_a_used_work_dir_is_not_set_aside_for_weights_that_do_not_fit(config, weights, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used/iter_3.pth").write_bytes(b"former")
    with pytest.raises(UserError, match=r"holds no ResNet"):
        pretrain(config("vader", RESNET, "used", str(weights["lite"])), overwrite=True)
    assert (tmp_path / "used/iter_3.pth").read_bytes() == b"former"
    assert not (tmp_path / "used.old1").exists()


class Settled(Exception):  # noqa: N818
    """Carries what the settings of a run are to follow from."""


def test_settings_follow_from_what_the_run_started_from(config, weights, monkeypatch):
    """Of a run that goes on it is known, and the file that it started from may be gone."""

    def settle(cfg, processes, recipe_batch, from_weights, former):
        raise Settled(from_weights)

    def start(name, init, **how):
        cfg = config("vader", RESNET, name, init)
        del cfg.default_hooks["heads_first"]
        with pytest.raises(Settled) as settled:
            pretrain(cfg, **how)
        return settled.value.args[0]

    monkeypatch.setattr("slotcon_plugin.apis.settle_for_run", settle)
    assert start("random", None) is False
    assert start("given", str(weights["resnet"])) is True
    run = {"id": "x", "identity": {"init": "weights.pth"}}
    claim = Claim(run, checkpoint=None)
    monkeypatch.setattr("slotcon_plugin.apis.claim_work_dir", lambda *_: claim)
    assert start("going_on", None, resume=True) is True
    run["identity"]["init"] = "random weights"
    assert start("going_on", None, resume=True) is False


def test_a_backbone_that_was_let_go_is_not_held_again_in_a_longer_run(config, weights, tmp_path):
    short = {"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 2}  # 4 steps, of which 2 are the heads'
    pretrain(config("vader", RESNET, "run", {"file": str(weights["resnet"])}, **short))
    given = torch.load(weights["resnet"])
    for branch in ("student", "teacher"):
        held = backbone_of(tmp_path / "run/iter_2.pth", branch)
        assert held and all(torch.equal(value, given[key]) for key, value in held.items())
    before = backbone_of(tmp_path / "run/iter_4.pth")
    assert before["bn1.num_batches_tracked"] == 2  # of the two steps after that
    longer = {**short, "train_cfg.max_epochs": 3}  # 12 steps: the heads' share of them would be 6
    pretrain(config("vader", RESNET, "run", {"file": str(weights["resnet"])}, **longer), resume=True)
    after = backbone_of(tmp_path / "run/iter_5.pth")
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])


def test_pixels_given_on_a_resume_win_over_those_of_the_weights(config, weights, tmp_path):
    init, short = {"file": str(weights["resnet"])}, {"train_cfg.max_epochs": 1}
    pretrain(config("vader", RESNET, "run", init, **short))
    mean = [0.1, 0.2, 0.3]
    pretrain(config("vader", RESNET, "run", **{"model.data_preprocessor.mean": mean}), resume=True)
    log = "".join(path.read_text() for path in (tmp_path / "run").rglob("*.log"))
    assert "Changed since the checkpoint: model.data_preprocessor.mean[0] 0.48" in log
    assert "model.data_preprocessor.std" not in log
    pixels = Config.fromfile(next((tmp_path / "run").glob("*.py"))).model.data_preprocessor
    assert list(pixels.mean) == mean and "std" in pixels
    assert load_file(tmp_path / f"run/iter_{STEPS}.pth")["pretraining"]["mean"] == pytest.approx([25.5, 51, 76.5])


def test_heads_first_is_for_runs_from_weights(config):
    with pytest.raises(UserError, match=r"default_hooks\.heads_first=None"):
        pretrain(config("vader", RESNET, "random"))
