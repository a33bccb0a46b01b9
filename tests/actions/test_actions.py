"""The functions of `slotcon_plugin`, from photos to vectors, on a run of one epoch."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from torchvision.models import resnet18

import slotcon_plugin
from slotcon_plugin.actions import pretraining
from slotcon_plugin.demo_scenes import make_demo_scenes
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import open_labelled_set
from slotcon_plugin.evaluation.pixel_retrieval import compare_pixel_retrieval
from slotcon_plugin.evaluation.run import evaluate_unsupervised
from slotcon_plugin.registry import HOOKS

TINY = {
    "train_dataloader.batch_size": 8,
    "auto_scale_lr.base_batch_size": 8,
    "train_dataloader.num_workers": 0,
    "train_dataloader.dataset.view_size": 64,
}
SMALL = {**TINY, "model.projector.hidden_channels": 64, "model.predictor.hidden_channels": 64}
PROBE = dict(epochs=1, seeds=(0,), neighbours=0, input_size=(64, 96))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_demo_scenes(tmp_path_factory.mktemp("scenes") / "scenes", {"train": 16, "val": 4}, size=(96, 72))


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return slotcon_plugin.pretrain(scenes / "images/train", out, epochs=1, options=SMALL)


@pytest.fixture(scope="module")
def vader(scenes, tmp_path_factory):
    small = {"model.decoder.fpn_channels": 8, "model.decoder.channels": 8, "model.queue_size": 64, **TINY}
    out = tmp_path_factory.mktemp("runs") / "vader"
    return slotcon_plugin.pretrain(scenes / "images/train", out, method="vader", epochs=1, options=small)


def test_pretrain_tells_what_it_has_made(run):
    assert run.checkpoint.is_file() and run.config.is_file() and run.work_dir == run.checkpoint.parent
    assert (run.method, run.title, run.photos, run.epochs) == ("slotcon", "SlotCon", 16, 1)


def test_epochs_are_those_that_a_run_has_seen_and_not_those_that_were_planned(scenes, tmp_path, monkeypatch):
    class OutOfTime(Hook):
        def after_train_iter(self, runner, *_, **__):
            if runner.iter + 1 == 3:
                runner.train_loop.end_with_this_iteration()

    monkeypatch.setitem(HOOKS.module_dict, "OutOfTime", OutOfTime)
    early = {**SMALL, "custom_hooks": [dict(type="OutOfTime")]}
    run = slotcon_plugin.pretrain(scenes / "images/train", tmp_path / "run", epochs=5, options=early)
    assert (run.checkpoint.name, run.epochs) == ("iter_3.pth", 1.5)


def test_no_rank_reads_the_last_checkpoint_before_it_is_written(monkeypatch, scenes, tmp_path):
    order = []
    monkeypatch.setattr(pretraining.apis, "pretrain", lambda *_: order.append("train"))
    monkeypatch.setattr(pretraining, "barrier", lambda: order.append("wait"))
    monkeypatch.setattr(pretraining, "last_checkpoint", lambda _: order.append("read"))
    monkeypatch.setattr(pretraining, "finished", lambda *_: order.append("read"))
    slotcon_plugin.pretrain(scenes / "images/train", tmp_path / "run", epochs=1, options=SMALL)
    assert order == ["train", "wait", "read", "read"]


def test_a_finished_run_that_was_copied_is_started_again_where_it_lies(run, scenes, tmp_path, capfd):
    copied = shutil.copytree(run.work_dir, tmp_path / "copied")
    again = slotcon_plugin.pretrain(scenes / "images/train", copied, epochs=1, options=SMALL, resume=True)
    assert again.checkpoint == copied / run.checkpoint.name
    told = re.search(r"^ *checkpoint +(\S+\.pth)$", capfd.readouterr().out, re.MULTILINE)
    assert told and Path(told[1]).resolve() == again.checkpoint.resolve()


def test_a_run_is_taken_as_it_is_as_a_work_dir_and_as_a_checkpoint(run, tmp_path):
    hashes = set()
    for number, way in enumerate((run, run.work_dir, str(run.checkpoint))):
        made = slotcon_plugin.export(way, tmp_path / f"{number}.pth")
        hashes.add(made.metadata["backbone_sha256"])
        assert made.path.is_file() and made.metadata["proof"]["method"] == "feature parity"
    assert len(hashes) == 1
    assert slotcon_plugin.export(run.work_dir).path == run.work_dir / "backbone_torchvision.pth"
    assert f"wrote   {made.path}" in str(made)
    with pytest.raises(UserError, match=r"exists: .*overwrite=True"):
        slotcon_plugin.export(run)
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        slotcon_plugin.export(tmp_path, "x.pth")


def test_a_probe_while_training_changes_nothing(run, scenes, tmp_path, capsys):
    probed = slotcon_plugin.pretrain(scenes / "images/train", tmp_path / "run", epochs=1, options=SMALL, probe=scenes)
    first, second = (torch.load(r.checkpoint, weights_only=False)["state_dict"] for r in (run, probed))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    said = capsys.readouterr().out
    assert said.count("linear probe after iteration") == 2
    assert re.search(r"probe       \d+\.\d mIoU, \d+\.\d before training \(16 photos of scenes/train, linear\)", said)


def test_evaluate_on_masks(run, scenes, tmp_path):
    made = slotcon_plugin.evaluate(run, scenes, out=tmp_path, **{**PROBE, "seeds": (0, 1)})
    assert set(made.figures) == {"pretrained", "random"}
    assert made.data == f"{scenes.name}/train -> {scenes.name}/val"
    assert made.files == (tmp_path / "linear_checkpoint.json", tmp_path / "linear_random.json")
    assert all(0 < row["linear mIoU"] < 100 for row in made.figures.values())
    written = json.loads((tmp_path / "linear_checkpoint.json").read_text())
    splits = (f"{scenes.name}/train", f"{scenes.name}/val", [16, 4])  # which one heads learn from, which one judges
    assert (written["train"], written["test"], written["num_images"]) == splits
    for arm, file in zip(("pretrained", "random"), made.files):
        wanted = json.loads(file.read_text())["metrics"]["mIoU"]
        assert made.figures[arm]["linear mIoU"] == pytest.approx(wanted, abs=0.01)
    assert made.figures["pretrained"]["spread"] == pytest.approx(written["metrics"]["mIoU_spread"], abs=0.01)
    assert "linear mIoU    spread    linear accuracy" in str(made)
    single = slotcon_plugin.evaluate(run, scenes, **PROBE)
    assert "spread" not in single.figures["random"]


def test_evaluate_by_prototypes_beside_an_untrained_model(run, scenes, tmp_path):
    made = slotcon_plugin.evaluate(run.work_dir, scenes, "prototypes", out=tmp_path, pretraining="mine", short_side=64)
    data = open_labelled_set(scenes, "val")
    for arm, trained in (("pretrained", True), ("untrained", False)):
        wanted = evaluate_unsupervised(run.config, run.checkpoint, data, short_side=64, trained=trained).metrics()
        assert made.figures[arm] == {name: value for name, value in wanted.items() if name != "live_prototypes"}
    assert made.figures["pretrained"] != made.figures["untrained"]
    assert made.data == data.name
    assert made.files == (tmp_path / "prototypes.json", tmp_path / "prototypes_random.json")
    written = json.loads(made.files[0].read_text())
    assert (written["pretraining"], written["data"], written["num_images"]) == ("mine", data.name, 4)
    assert written["metrics"]["mIoU_kmeans"] == pytest.approx(made.figures["pretrained"]["mIoU_kmeans"], abs=0.01)
    assert written["backbone_sha256"]
    random = json.loads(made.files[1].read_text())
    assert (random["pretraining"], random["backbone_sha256"], len(random["weights_sha256"])) == ("random", None, 64)
    assert random["metrics"]["mIoU_kmeans"] == pytest.approx(made.figures["untrained"]["mIoU_kmeans"], abs=0.01)
    assert (random["task"], random["config_sha256"]) == (written["task"], written["config_sha256"])


def test_results_of_other_weights_are_neither_replaced_nor_joined(run, scenes, tmp_path):
    """One run's probe and prototypes share a folder and, in tables, a row."""
    slotcon_plugin.evaluate(run, scenes, out=tmp_path, **PROBE)
    slotcon_plugin.evaluate(run, scenes, "prototypes", out=tmp_path, short_side=64)
    kept = {path: path.read_text() for path in tmp_path.iterdir()}
    assert {json.loads(text)["pretraining"] for text in kept.values()} == {"slotcon", "random"} and len(kept) == 4
    for measure, settings in (("probe", PROBE), ("prototypes", {"short_side": 64})):
        with pytest.raises(UserError, match=r"linear_checkpoint\.json is of other weights \(slotcon\): give another"):
            slotcon_plugin.evaluate(run, scenes, measure, out=tmp_path, branch="student", **settings)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == kept


def test_evaluate_by_retrieval_beside_random_weights_and_guessing(vader, scenes):
    photos = scenes / "images/val"
    made = slotcon_plugin.evaluate(vader, photos, "retrieval", num_pairs=4)
    arms = compare_pixel_retrieval(vader.config, photos, [vader.checkpoint], num_pairs=4)
    sources = {"pretrained": str(vader.checkpoint), "random": "random weights", "guessing": "random weights"}
    assert made.figures == {
        arm: {
            kind: 100 * arms[source][f"{kind}_{'chance' if arm == 'guessing' else 'accuracy'}"]
            for kind in ("pixel", "photo", "place")
        }
        for arm, source in sources.items()
    }
    assert made.figures["pretrained"] != made.figures["random"]
    assert (made.measure, made.data, made.files) == ("retrieval", str(photos), ())


def test_embed_a_run_and_somebodys_weights(run, scenes, tmp_path):
    own = slotcon_plugin.embed(run, scenes / "images/val", tmp_path / "own.npz", short_side=64)
    assert own.vectors.shape == (4, 512) and own.vectors.dtype == np.float16 and (tmp_path / "own.npz").is_file()
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    crops = slotcon_plugin.embed(tmp_path / "resnet18.pth", scenes / "images/val", level="crop", short_side=64)
    assert len(crops) == 4 * 9


def test_a_file_of_embeddings_is_not_replaced_unasked(run, scenes, tmp_path):
    out, photos = tmp_path / "own.npz", scenes / "images/val"
    out.write_text("vectors of yesterday")
    with pytest.raises(UserError, match=r"own\.npz exists: give another name, or --overwrite"):
        slotcon_plugin.embed(run, photos, out, short_side=64)
    assert out.read_text() == "vectors of yesterday"
    slotcon_plugin.embed(run, photos, out, short_side=64, overwrite=True)
    assert len(np.load(out)["vectors"]) == 4


@pytest.mark.parametrize("parts", [{"grid": (4, 4)}, {"boxes": {}}])
def test_parts_of_photos_are_for_crops(parts, run, scenes):
    with pytest.raises(UserError, match=f"{next(iter(parts))}: for level 'crop', and the level asked for is 'photo'"):
        slotcon_plugin.embed(run, scenes / "images/val", **parts)


def test_embed_the_boxes_of_a_coco_file(run, tmp_path):
    scenes = make_demo_scenes(tmp_path / "coco", {"train": 1, "val": 4}, size=(96, 72), layout="coco")
    file = next(scenes.glob("annotations/instances_val*.json"))
    content = json.loads(file.read_text())
    made = slotcon_plugin.embed(run, next(scenes.glob("val*")), level="crop", boxes=file, short_side=64)
    assert len(made) == len(content["annotations"])
    x, y, width, height = content["annotations"][0]["bbox"]
    assert made.boxes[0] == pytest.approx([x, y, x + width, y + height])


def test_of_a_coco_file_the_photos_that_are_there_are_embedded(run, tmp_path, caplog, capsys):
    scenes = make_demo_scenes(tmp_path / "coco", {"train": 1, "val": 4}, size=(96, 72), layout="coco")
    file, folder = next(scenes.glob("annotations/instances_val*.json")), next(scenes.glob("val*"))
    boxes = Counter(annotation["image_id"] for annotation in json.loads(file.read_text())["annotations"])
    images = [image for image in json.loads(file.read_text())["images"] if boxes[image["id"]]]
    first, *others = [folder / image["file_name"] for image in images]
    for path in others:
        path.unlink()
    made = slotcon_plugin.embed(run, folder, level="crop", boxes=file, short_side=64)
    assert (len(made), made.paths) == (boxes[images[0]["id"]], (str(first),))
    told = caplog.text + "".join(capsys.readouterr())
    assert told.count(f"boxes: left out {len(others)} of {len(images)} photos of {file} that are not below") == 1
    first.unlink()
    with pytest.raises(
        UserError, match=rf"boxes: none of the {len(images)} photos of .* is below .*: no .*{first.name}"
    ):
        slotcon_plugin.embed(run, folder, level="crop", boxes=file, short_side=64)


def test_a_limit_counts_photos_that_have_boxes(run, scenes):
    photos = sorted((scenes / "images/train").iterdir())
    boxes = {str(path): [[0, 0, 8, 8]] for path in photos[5:8]}
    made = slotcon_plugin.embed(run, scenes / "images/train", level="crop", boxes=boxes, limit=2, short_side=64)
    assert made.paths == (str(photos[5]), str(photos[7]))


def test_look(run, scenes, tmp_path):
    assert slotcon_plugin.look(run) == run.work_dir / "curves.html"
    picture = slotcon_plugin.look(run.work_dir, scenes / "images/val", tmp_path / "g.png", short_side=64)
    assert picture.stat().st_size > 1000
    with pytest.raises(UserError, match="expected one of curves, groups, prototypes, retrieval"):
        slotcon_plugin.look(run, scenes, kind="grops")


def test_several_runs_are_drawn_together(run, vader, tmp_path):
    page = slotcon_plugin.look(run, vader.work_dir, tmp_path / "both.html", "curves", names=["first", "second"])
    assert "Curves of first, second" in page.read_text()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("evaluate", "retrieval", {"epochs": 3}), "retrieval has no setting epochs; its settings are num_pairs, seed"),
        (("evaluate", "prototypes", {"shortside": 3}), r"no setting shortside; did you mean short_side\?"),
        (("evaluate", "probe", {"head": "p2"}), "probe has no setting head; "),
        (("evaluate", "probe", {"out_dir": "x"}), "probe has no setting out_dir; "),
        (("evaluate", "probe", {"short_side": 64}), "probe has no setting short_side; its settings are "),
        (("look", "curves", {"limit": 3}), "curves has no setting limit; its settings are figures, names, smooth, x"),
        (("look", None, {"points": []}), "groups has no setting points; "),
        (("export", None, {"shortside": 64}), "export has no setting shortside; its settings are "),
    ],
)
def test_settings_of_something_else_are_refused(call, message, run, scenes):
    function, what, settings = call
    photos = () if what == "curves" else scenes
    arguments = {"evaluate": {"measure": what}, "look": {"kind": what}}.get(function, {})
    with pytest.raises(UserError, match=message):
        getattr(slotcon_plugin, function)(run, photos, **arguments, **settings)


def test_the_curves_of_a_checkpoint_are_those_of_its_run(run):
    assert slotcon_plugin.look(run.checkpoint) == run.work_dir / "curves.html"


@pytest.mark.parametrize(
    "setting",
    [
        *({"neighbours": -3}, {"input_size": (0, 64)}, {"input_size": (64,)}, {"epochs": 0}),
        *({"seeds": ()}, {"seeds": (0, 1, 0)}),
    ],
)
def test_settings_out_of_their_range_are_refused_before_anything_is_read(setting, tmp_path):
    with pytest.raises(UserError, match=f"{next(iter(setting))}: expected "):
        slotcon_plugin.evaluate(tmp_path / "no run", tmp_path / "no photos", **setting)


def test_a_work_dir_says_which_network_it_is(run, scenes):
    with pytest.raises(UserError, match=r"--network resnet50: .* says which network it is; leave --network out"):
        slotcon_plugin.evaluate(run.work_dir, scenes, network="resnet50", **PROBE)
    with pytest.raises(UserError, match="--decoder and --output-stride exclude each other"):
        slotcon_plugin.evaluate(run.work_dir, scenes, decoder=True, output_stride=16, **PROBE)


@pytest.mark.parametrize("option", [{"limit": 4}, {"out": "results"}, {"pretraining": "x"}, {"test": "test"}])
def test_retrieval_takes_no_option_that_it_would_not_heed(option, run, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"shows its figures: no {next(iter(option))}"):
        slotcon_plugin.evaluate(run, scenes / "images/val", "retrieval", **option)
    assert not any(tmp_path.iterdir())


def test_nor_do_prototypes(tmp_path):
    with pytest.raises(UserError, match=r"prototypes learn from no labels .*'val' alone: no train"):
        slotcon_plugin.evaluate(tmp_path / "no run", tmp_path / "no photos", "prototypes", train="foo")


def test_a_run_that_would_leave_nothing_is_refused(scenes, tmp_path):
    options = {**SMALL, "default_hooks.checkpoint": None}
    with pytest.raises(UserError, match="without this hook the run would leave nothing"):
        slotcon_plugin.pretrain(scenes / "images/train", tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_a_seed_that_is_none_is_refused_before_the_work_dir_is_made(scenes, tmp_path):
    with pytest.raises(UserError, match=r"randomness\.seed: expected a whole number"):
        slotcon_plugin.pretrain(scenes / "images/train", tmp_path / "run", options={**SMALL, "randomness.seed": -1})
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written there .*--out"):
        slotcon_plugin.evaluate(tmp_path / "no run", tmp_path / "no photos", out=tmp_path / "file/results")
    with pytest.raises(UserError, match=r"g\.png cannot be written there .*--out"):
        slotcon_plugin.look(tmp_path / "no run", tmp_path / "no photos", tmp_path / "file/g.png")
    with pytest.raises(UserError, match=r"e\.npz cannot be written there .*--out"):
        slotcon_plugin.embed(tmp_path / "no run", tmp_path / "no photos", tmp_path / "file/e.npz")


def test_look_at_matches_of_two_photos(vader, scenes, tmp_path, capsys):
    photos = scenes / "images/train"
    pair = sorted(photos.iterdir())[:2]
    assert slotcon_plugin.look(vader, photos, short_side=64) == vader.work_dir / "retrieval.html"
    assert f"Points of {pair[0]}, looked for in {pair[1]}" in capsys.readouterr().out
    picture = slotcon_plugin.look(vader, pair, tmp_path / "r.png", kind="retrieval", short_side=64)
    assert picture.stat().st_size > 1000
    assert slotcon_plugin.look(vader, pair[0], tmp_path / "itself.png", short_side=64).exists()


def test_importing_the_package_imports_nothing_heavy():
    heavy = "[m for m in ('torch', 'torchvision', 'timm', 'cv2', 'matplotlib', 'scipy') if m in sys.modules]"
    code = f"import sys, slotcon_plugin; print({heavy}, slotcon_plugin.__all__ == sorted(slotcon_plugin.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


def test_the_functions_are_where_the_package_says():
    for name in slotcon_plugin.__all__:
        assert getattr(slotcon_plugin, name) and name in dir(slotcon_plugin)
    with pytest.raises(AttributeError, match="has no attribute 'pretrian'"):
        _ = slotcon_plugin.pretrian
