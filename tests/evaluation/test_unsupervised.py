"""Segmentation by prototypes without labels: the protocols, result files and the hook."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn

from slotcon_plugin.engine.settings import SETTINGS
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import UnsupervisedSegHook, open_labelled_set, segment_unsupervised, unsupervised
from slotcon_plugin.evaluation.arms import build_untrained, sha256_of_backbone
from slotcon_plugin.evaluation.metrics import confusion_counts
from slotcon_plugin.evaluation.run import evaluate_unsupervised, probe_checkpoint
from slotcon_plugin.evaluation.unsupervised import score_counts
from slotcon_plugin.loading import load_pretrainer
from slotcon_plugin.models import BasePretrainer, Method
from slotcon_plugin.normalization import IMAGENET_MEAN, IMAGENET_STD
from slotcon_plugin.registry import HOOKS
from slotcon_plugin.results import read_result


def test_protocols_by_hand():
    # the pixels of prototypes 0 and 1 lie the same way; 4 is dead and points where nothing else does
    owned = np.array([[1, 0, 0], [3, 0.2, 0], [0, 1, 0], [0, 0, 2], [-1, -1, -1]])
    counts = np.array([[40, 5, 0], [30, 0, 0], [0, 20, 2], [1, 0, 10], [0, 0, 0]])
    result = score_counts(counts, owned, ("a", "b", "c"))
    assert result.live_prototypes == 4
    hungarian, kmeans, majority = (result.scores[name] for name in ("hungarian", "kmeans", "majority"))
    # prototype 1 is left over: its 30 pixels of class a are wrong
    np.testing.assert_allclose(hungarian.iou, [100 * 40 / 76, 100 * 20 / 27, 100 * 10 / 13])
    assert hungarian.pixel_accuracy == pytest.approx(100 * 70 / 108)
    # merged {0, 1}: 70 right of class a
    np.testing.assert_allclose(kmeans.iou, [100 * 70 / 76, 100 * 20 / 27, 100 * 10 / 13])
    assert kmeans.pixel_accuracy == pytest.approx(100 * 100 / 108)
    np.testing.assert_allclose(majority.iou, kmeans.iou)
    figures = result.metrics()
    assert figures["mIoU_kmeans"] == kmeans.miou
    assert figures["live_prototypes"] == 4
    assert "4 of 5 prototypes own pixels; 3 classes" in str(result)


def test_fewer_prototypes_than_classes():
    result = score_counts(np.array([[4, 0, 0], [0, 3, 3]]), np.eye(2), ("a", "b", "c"))
    for name in ("hungarian", "kmeans", "majority"):
        np.testing.assert_allclose(sorted(result.scores[name].iou), [0, 50, 100])
        assert result.scores[name].pixel_accuracy == pytest.approx(70)


def test_a_real_model_against_naive_code(config, demo):
    model = build_untrained(config, seed=0).train()
    data = open_labelled_set(demo, "val")
    result = segment_unsupervised(model, data, short_side=48, batch_size=2)
    assert model.training, "the mode is left as it was"

    model.eval()
    counts = np.zeros((14, 11), int)
    parts = model.teacher
    owned = F.normalize(parts["grouping"].prototypes.detach(), dim=1).double().numpy()
    for index in range(3):
        image, label = data.read(index)
        pixels = (image / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        with torch.no_grad():
            z = parts["projector"](parts["backbone"](torch.tensor(pixels).permute(2, 0, 1)[None].float())[-1])
        cosine = torch.stack([F.cosine_similarity(z, p.view(1, -1, 1, 1)) for p in parts["grouping"].prototypes], 1)
        for row, column in np.ndindex(*cosine.shape[2:]):
            vector = z[0, :, row, column].numpy()
            owned[cosine[0, :, row, column].argmax()] += vector / np.linalg.norm(vector)
        full = F.interpolate(cosine, label.shape, mode="bilinear", align_corners=False)[0]
        counts += confusion_counts(full.argmax(0).numpy(), label, 14, 11)
    assert np.abs(result.counts - counts).sum() <= 4, "up to ties in the last bit"
    assert result.counts.sum() == 3 * 48 * 64
    expected = score_counts(result.counts, owned, data.classes)
    np.testing.assert_allclose(result.scores["kmeans"].iou, expected.scores["kmeans"].iou)
    vectors = score_counts(result.counts, parts["grouping"].prototypes.detach().numpy(), data.classes)
    assert not np.allclose(result.scores["kmeans"].iou, vectors.scores["kmeans"].iou), "a merge of something else"


def test_a_branch_is_segmented_by_its_own_maps_and_prototypes(config, demo, moved_apart, monkeypatch):
    """The student's figures are those of a model whose teacher is that student."""
    model, data, seen = moved_apart(build_untrained(config, seed=0)), open_labelled_set(demo, "val"), []
    twin = build_untrained(config, seed=0)
    twin.teacher.load_state_dict(model.student.state_dict(), strict=False)
    monkeypatch.setattr(unsupervised, "score_counts", lambda counts, owned, *_: seen.append((counts, owned)))
    for one, which in ((model, {"branch": "student"}), (twin, {}), (model, {})):
        segment_unsupervised(one, data, **which, short_side=48)
    (counts, owned), (wanted, of_twin), (others, _) = seen
    np.testing.assert_array_equal(counts, wanted)
    np.testing.assert_allclose(owned, of_twin, atol=1e-6)
    assert (counts != others).any()


class Painter(nn.Module):
    """A model whose prototypes are exactly the classes of the demo scenes, in another order."""

    method = Method("painter", "Painter", groups=True)
    require = BasePretrainer.require

    def __init__(self, labels):
        super().__init__()
        self.labels = labels
        self.grouping = nn.Module()
        self.grouping.prototypes = nn.Parameter(torch.eye(11))

    def branch(self, name):
        return {"grouping": self.grouping}

    def prototypes(self, branch):
        return self.grouping.prototypes

    def group(self, images, branch):
        taken, self.labels = self.labels[: len(images)], self.labels[len(images) :]
        logits = F.one_hot((torch.stack(taken) + 3) % 11, 11).permute(0, 3, 1, 2).float()
        return SimpleNamespace(assignment_logits=logits, z=logits)


def test_a_perfect_grouping_scores_100(demo):
    data = open_labelled_set(demo, "val")
    labels = [torch.from_numpy(data.read(i).label).long() for i in range(3)]
    result = segment_unsupervised(Painter(labels), data, batch_size=2)
    for score in result.scores.values():
        assert score.miou == score.pixel_accuracy == 100


class Wordless(Painter):
    """Whatever it can do, its declaration says that it has no prototypes."""

    method = Method("wordless", "Wordless")


def test_a_method_without_prototypes_is_refused(demo):
    with pytest.raises(UserError, match=r"needs a method with prototypes.*Wordless has none"):
        segment_unsupervised(Wordless([]), open_labelled_set(demo, "val"))


def test_result_file(config, checkpoint, demo, tmp_path):
    data = open_labelled_set(demo, "val")
    result = evaluate_unsupervised(config, checkpoint, data, short_side=48, result_file=tmp_path / "r.json")
    stored = read_result(tmp_path / "r.json")
    assert stored["metrics"] == pytest.approx(result.metrics())
    assert stored["pretraining"] == "slotcon"
    assert stored["task"] == "unsupervised_seg_demo_val"
    assert len(stored["backbone_sha256"]) == 64
    iou = stored["iou"]["kmeans"]
    assert list(iou) == list(data.classes)
    assert np.nanmean([np.nan if v is None else v for v in iou.values()]) == pytest.approx(
        result.scores["kmeans"].miou, abs=1e-2
    )

    evaluate_unsupervised(config, None, data, short_side=48, seed=3, result_file=tmp_path / "random.json")
    random = read_result(tmp_path / "random.json")
    assert random["backbone_sha256"] is None
    assert random["pretraining"] == "random"
    assert random["metrics"] == stored["metrics"], "the checkpoint was written from the same seed, untrained"

    other_seed = tmp_path / "tiny.py"  # as the copy in the work dir of a second run
    other_seed.write_text(config.read_text() + "\nrandomness = dict(seed=5)\nwork_dir = 'elsewhere'\n")
    evaluate_unsupervised(other_seed, checkpoint, data, short_side=48, result_file=tmp_path / "second.json")
    assert read_result(tmp_path / "second.json")["config_sha256"] == stored["config_sha256"]


def test_the_result_file_is_of_the_branch_that_was_asked_for(config, checkpoint, demo, tmp_path):
    model, data = load_pretrainer(config, checkpoint), open_labelled_set(demo, "val")
    for branch in ("student", "teacher"):
        options = dict(short_side=48, branch=branch)
        result = evaluate_unsupervised(config, checkpoint, data, **options, result_file=tmp_path / "r.json")
        assert result.metrics() == segment_unsupervised(model, data, **options).metrics()
        stored = read_result(tmp_path / "r.json")
        assert stored["backbone_sha256"] == sha256_of_backbone(model.branch(branch)["backbone"])
        assert stored["settings"]["branch"] == branch
    assert len({sha256_of_backbone(model.branch(branch)["backbone"]) for branch in ("student", "teacher")}) == 2


def test_of_several_heads_the_one_that_is_asked_for_is_evaluated(config, checkpoint, demo, tmp_path):
    two_heads = dict(
        Config.fromfile(config).model.to_dict(),
        type="SlotConDecoder",
        decoder=dict(channels=8, levels=["p4"]),
        decoder_head=dict(grouping=dict(num_prototypes=9)),
    )
    recipe = tmp_path / "two_heads.py"
    Config(dict(default_scope="slotcon_plugin", model=two_heads)).dump(recipe)
    model, data = build_untrained(recipe, seed=1), open_labelled_set(demo, "val")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "iter_1.pth")
    found = {}
    for head in ("encoder", "p4", None):
        options = dict(short_side=48, head=head, result_file=tmp_path / "r.json")
        found[head] = evaluate_unsupervised(recipe, tmp_path / "iter_1.pth", data, **options)
        assert read_result(tmp_path / "r.json")["settings"].get("head") == head
        model.shown_head = head or "p4"  # the decoder's finest
        np.testing.assert_array_equal(found[head].counts, segment_unsupervised(model, data, short_side=48).counts)
    assert (len(found["encoder"].counts), len(found["p4"].counts)) == (14, 9)
    assert found["encoder"].metrics() != found["p4"].metrics()
    with pytest.raises(UserError, match=r"SlotCon with decoder has the heads encoder, p4; got 'p9'"):
        evaluate_unsupervised(recipe, tmp_path / "iter_1.pth", data, head="p9")
    with pytest.raises(UserError, match=r"SlotCon has one head, which has no name; got 'encoder'"):
        evaluate_unsupervised(config, checkpoint, data, head="encoder")


def test_the_untrained_model_is_of_the_checkpoints_size_whatever_the_config_leaves_open(
    config, checkpoint, demo, tmp_path
):
    data = open_labelled_set(demo, "val").subset(2)
    recipe = tmp_path / "recipe.py"  # which says a number of prototypes for many photos
    recipe.write_text(config.read_text() + "\nmodel['grouping']['num_prototypes'] = '${num_prototypes(256)}'\n")
    content = torch.load(checkpoint, weights_only=False)
    content.setdefault("meta", {})[SETTINGS] = {"${num_prototypes(256)}": 14}
    torch.save(content, tmp_path / "iter_1.pth")
    options = dict(short_side=48, result_file=tmp_path / "r.json")
    evaluate_unsupervised(recipe, tmp_path / "iter_1.pth", data, trained=False, **options)
    stored = read_result(tmp_path / "r.json")
    assert (stored["pretraining"], stored["backbone_sha256"]) == ("random", None)
    assert stored["metrics"] == pytest.approx(evaluate_unsupervised(config, None, data, short_side=48).metrics())


def test_a_place_that_cannot_be_written_is_found_before_the_work(demo, tmp_path):
    (tmp_path / "file").touch()
    data = open_labelled_set(demo, "val")
    with pytest.raises(UserError, match=r"file: r\.json cannot be written there .*--out"):
        evaluate_unsupervised("no config", None, data, result_file=tmp_path / "file/r.json")
    with pytest.raises(UserError, match=r"file: result\.json cannot be written there .*--out"):
        probe_checkpoint("no checkpoint", data, data, out_dir=tmp_path / "file")


def test_hook_reports_the_figures_of_the_library(config, demo):
    model = build_untrained(config, seed=0)
    hook = HOOKS.build(dict(type="UnsupervisedSegHook", data=str(demo), interval=2, limit=2, short_side=48))
    assert isinstance(hook, UnsupervisedSegHook)
    scalars = []
    runner = SimpleNamespace(
        model=model, epoch=0, iter=0, max_epochs=3, max_iters=30, logger=logging.getLogger("hook-test"),
        visualizer=SimpleNamespace(add_scalars=lambda values, step: scalars.append((step, values))),
    )  # fmt: skip
    runner._train_loop = runner
    hook.is_last_train_epoch = lambda runner: runner.epoch + 1 == runner.max_epochs
    hook.before_train(runner)
    for epoch in range(3):
        runner.epoch, runner.iter = epoch, 10 * (epoch + 1)
        hook.after_train_epoch(runner)
    assert [step for step, _ in scalars] == [0, 20, 30], "before, every second epoch, at the end"
    expected = segment_unsupervised(model, open_labelled_set(demo, "val").subset(2), short_side=48).metrics()
    assert scalars[0][1] == {f"unsupervised/{name}": value for name, value in expected.items()} | {"iter": 0}
    assert scalars[1][1]["iter"] == 20, "a record without it would be placed by its step, as an epoch"


def test_hook_finds_mistakes_before_training(demo):
    with pytest.raises(ValueError, match="no such folder"):
        UnsupervisedSegHook(data=str(demo / "nowhere"))
    with pytest.raises(ValueError, match="at least 1 epoch, got 0"):
        UnsupervisedSegHook(data=str(demo), interval=0)
    with pytest.raises(ValueError, match="Wordless has none"):
        UnsupervisedSegHook(data=str(demo)).before_train(SimpleNamespace(model=Wordless([]), iter=0))
