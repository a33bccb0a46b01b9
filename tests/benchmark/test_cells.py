"""Which result files share a cell of a table, which must not, and which are in none."""

import json

import pytest

from slotcon_plugin.benchmark import load_plan
from slotcon_plugin.benchmark.collect import collect
from slotcon_plugin.benchmark.tables import build_table
from slotcon_plugin.engine.batch import plan_batch
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import sha256_of, write_json

COCO = "detectron2_mask_rcnn_r50_fpn_1x_coco"


def test_results_of_different_configs_do_not_share_a_cell(plan, result, tmp_path):
    result("a.json", "slotcon", COCO, AP_box=1.0)
    result("b.json", "slotcon", COCO, seed=1, config="configs/pretrain/slotcon_coco.py", AP_box=2.0)
    result("c.json", "moco", COCO, AP_box=3.0)
    runs = collect([tmp_path / "results"])[0]
    with pytest.raises(ValueError, match=r"(?s)different configs.*a\.json.*b\.json"):
        build_table(plan, runs, None)
    table = build_table(plan, runs, None, strict=False)  # at the end of a week of runs
    assert [cell.kind for title, cells in table.rows for cell in cells[1:2]] == ["missing", "missing", "measured"]
    assert "cannot share a cell" in table.problems[0]


@pytest.mark.parametrize("changes", [{"num_images": [50, 50]}, {"settings": {"branch": "student", "seed": 1}}])
def test_results_of_other_settings_do_not_share_a_cell(changes, plan, result, tmp_path):
    common = {"num_images": [367, 233], "settings": {"branch": "teacher", "seed": 0}}
    for seed, more in enumerate(({}, {"settings": {"branch": "teacher", "seed": 1}}, changes)):
        file = result(f"{seed}.json", "slotcon", COCO, seed=seed, AP_box=1.0)
        write_json(file, json.loads(file.read_text()) | common | more)
        if seed == 1:
            build_table(plan, collect([tmp_path / "results"])[0], None)
    with pytest.raises(ValueError, match="settings, batches, strides or numbers of photos cannot share a cell"):
        build_table(plan, collect([tmp_path / "results"])[0], None)


TWO_SETS = {
    "data.more": {"path": "more"},
    "tasks.probe_more": {"tool": "probe", "data": "more", "result": "linear_probe_*", "metrics": ["mIoU"]},
    "tasks.coco_more": dict(
        tool="detectron2",
        config="configs/transfer/detectron2/mask_rcnn_r50_fpn_1x_coco.yaml",
        data="more",
        result=COCO,
        metrics=["AP_box"],
    ),
}


def test_the_folder_tells_tasks_of_one_result_name_apart(plan_file, result, tmp_path):
    """One config, or the probe, on two data sets."""
    plan = load_plan(plan_file, TWO_SETS)
    for key, figure in (("coco", 10.0), ("coco_more", 30.0)):
        result(f"{key}/slotcon-seed0/result.json", "slotcon", COCO, AP_box=figure)
    for key, data, figure in (("probe", "masks", 20.0), ("probe_more", "more", 40.0)):
        for arm, sha in (("slotcon", "a"), ("random", None)):
            file = f"{key}/slotcon-seed0/linear_{arm}.json"
            result(file, arm, f"linear_probe_{data}_val", sha=sha, mIoU=figure)
    table = build_table(plan, collect([tmp_path / "results"])[0], None)
    rows = {title: dict(zip(map(str, table.columns), cells)) for title, cells in table.rows}
    assert [rows["slotcon"][name].values for name in ("COCO: AP_box", "coco_more: AP_box")] == [(10.0,), (30.0,)]
    for row in ("slotcon", "random init"):
        assert [rows[row][name].values for name in ("probe: mIoU", "probe_more: mIoU")] == [(20.0,), (40.0,)]
    assert table.problems == ()


def test_a_file_that_may_be_of_two_tasks_is_in_no_cell(plan_file, result, tmp_path):
    file = result("coco.json", "slotcon", COCO, AP_box=10.0)
    table = build_table(load_plan(plan_file, TWO_SETS), collect([tmp_path / "results"])[0], None)
    assert not any(cell.values for _, cells in table.rows for cell in cells)
    assert table.problems == (
        f"not in the table: {file}: task {COCO} may be coco or coco_more of the plan: the first folder below "
        "--results has to say, coco/...",
    )


def test_a_batch_that_is_not_the_recipes_shares_no_cell_with_it(plan, result, tmp_path):
    """Its learning rate is another one, though the config is the same; how a batch is divided changes nothing."""
    recipe, divided = plan_batch(8, 1, 8), plan_batch(8, 2, 2)
    scaled, likewise = plan_batch(8, 1, 16, "scale-lr"), plan_batch(8, 4, 4, "scale-lr")

    def shares(*batches):
        for seed, batch in enumerate(batches):
            file = result(f"{seed}.json", "slotcon", COCO, seed=seed, AP_box=1.0)
            told = {} if batch is None else {"batch": batch.text}
            write_json(file, json.loads(file.read_text()) | told)
        return not build_table(plan, collect([tmp_path / "results"])[0], None, strict=False).problems

    assert shares(recipe, divided) and shares(scaled, likewise) and shares(None, scaled)
    assert not shares(recipe, scaled)


def test_figures_of_two_sets_of_photos_share_no_cell(plan, result, tmp_path):
    for seed, task in enumerate(("linear_probe_masks_val", "linear_probe_other_val")):
        result(f"{seed}.json", "slotcon", task, seed=seed, mIoU=20.0)
    with pytest.raises(UserError, match="strides or numbers of photos cannot share"):
        build_table(plan, collect([tmp_path / "results"])[0], None, strict=True)


def test_random_weights_that_are_measured_beside_each_checkpoint_count_once_a_seed(plan, result, tmp_path):
    """A GPU's figures differ in their last digits; those of older files are known by their figure alone."""
    for name, seed, figure, weights in (
        ("a", 0, 20.0, "w0"),
        ("b", 0, 20.01, "w0"),
        ("c", 1, 22.0, "w1"),
        ("d", 1, 22.0, None),
    ):
        file = result(f"{name}.json", "random", "linear_probe_x", seed=seed, sha=None, mIoU=figure)
        if weights:
            write_json(file, json.loads(file.read_text()) | {"weights_sha256": weights})
    table = build_table(plan, collect([tmp_path / "results"])[0], None)
    (cell,) = [cells[0] for title, cells in table.rows if title == "random init"]
    assert cell.values == (20.0, 22.0)


@pytest.mark.parametrize("pretraining", ["slotcon", "random"])
def test_figures_at_different_strides_share_no_cell(pretraining, plan, result, tmp_path):
    """Random weights of a seed are the same at every stride; older files do not tell theirs."""
    for number, (seed, more) in enumerate(((0, {}), (1, {"map_sizes": [[15, 20]]}), (2, {"map_sizes": [[8, 10]]}))):
        file = result(f"{number}.json", pretraining, "linear_probe_x", seed=seed, sha=None, mIoU=20.0 + number)
        weights = {"weights_sha256": f"w{seed}"} if pretraining == "random" else {}
        write_json(file, json.loads(file.read_text()) | more | weights)
        if number == 1:
            build_table(plan, collect([tmp_path / "results"])[0], None)
    with pytest.raises(UserError, match="strides"):
        build_table(plan, collect([tmp_path / "results"])[0], None)


def test_random_weights_of_two_networks_share_no_cell(plan, result, tmp_path):
    for number, weights in enumerate(("resnet", "convnext")):
        file = result(f"{number}.json", "random", "linear_probe_x", sha=None, mIoU=20.0 + number)
        write_json(file, json.loads(file.read_text()) | {"weights_sha256": weights})
    with pytest.raises(UserError, match="random weights of different networks"):
        build_table(plan, collect([tmp_path / "results"])[0], None)


def test_figures_of_what_the_plan_was_before_are_left_out_and_named(result, tmp_path):
    old, new = (result(f"probe/{name}/result.json", name, "t", m=1.0) for name in ("old", "new"))
    for path in (old, new):
        write_json(path.parent / "started.json", {})
        write_json(path.parent / "step.json", {"outputs": {path.name: sha256_of(path)}})
    runs, problems = collect([tmp_path / "results"], {new.parent})
    assert [run.path for run in runs] == [new]
    assert problems == [f"ignored {old}: the plan has no such step now, or has changed since"]


def test_two_results_of_one_seed_are_named_and_share_no_cell(plan, result, tmp_path):
    """Of one plan on two sets of labels, for instance: nothing in the files tells them apart."""
    for folder, figure in (("a", 33.0), ("b", 33.0), ("c", 60.0)):
        if folder == "c":
            build_table(plan, collect([tmp_path / "results"])[0], None)  # a copy of the same run is no other one
        result(f"{folder}/coco/slotcon-seed0/result.json", "slotcon", COCO, AP_box=figure)
    with pytest.raises(UserError, match=r"runs of one seed \(0\) .*: .*results/a/.* and .*results/c/.*json"):
        build_table(plan, collect([tmp_path / "results"])[0], None)


def test_results_that_do_not_tell_their_number_of_photos_fit_any(plan, result, tmp_path):
    """Fine-tuning did not write it down at first."""
    for seed, more in enumerate(({}, {"num_images": [367, 233]}, {"num_images": [50, 233]})):
        file = result(f"{seed}.json", "slotcon", COCO, seed=seed, AP_box=1.0)
        write_json(file, json.loads(file.read_text()) | more)
        if seed == 1:
            assert not build_table(plan, collect([tmp_path / "results"])[0], None).problems
    with pytest.raises(UserError, match="numbers of photos cannot share a cell"):
        build_table(plan, collect([tmp_path / "results"])[0], None)


@pytest.mark.parametrize(("backbones", "values"), [("aaa", (48.0,)), ("abc", (48.0, 48.5, 49.0))])
def test_weights_that_are_probed_beside_several_random_ones_are_one_run(backbones, values, plan, result, tmp_path):
    """The seed of a probe is that of the random weights beside the checkpoint."""
    for seed, backbone in enumerate(backbones):
        figure = 48.0 + seed / 2 * (backbone != "a")
        file = result(f"{seed}/linear_checkpoint.json", "moco", "linear_probe_x", seed, sha=backbone, mIoU=figure)
        write_json(file, json.loads(file.read_text()) | {"config": "frozen_probe"})
    table = build_table(plan, collect([tmp_path / "results"])[0], None)
    (cell,) = [cells[0] for title, cells in table.rows if title == "moco"]
    assert cell.values == values
    assert (cell.spread is None) == (len(values) == 1)
    assert not table.problems


def test_a_fine_tuning_at_several_seeds_counts_each_though_its_weights_are_the_same(plan, result, tmp_path):
    for seed in range(3):
        result(f"{seed}.json", "moco", COCO, seed=seed, AP_box=30.0)
    table = build_table(plan, collect([tmp_path / "results"])[0], None)
    assert [cells[1].values for title, cells in table.rows if title == "moco"] == [(30.0,) * 3]
