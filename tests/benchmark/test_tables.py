"""Tables, where their figures are from, and pages; which files share a cell: test_cells."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from slotcon_plugin.benchmark.collect import collect
from slotcon_plugin.benchmark.render import (
    anchor,
    bar_chart,
    brief,
    csv_text,
    markdown,
    relative,
    runs_page,
    table_page,
)
from slotcon_plugin.benchmark.tables import Cell, build_table, read_published
from slotcon_plugin.files import sha256_of, write_json

COCO = "detectron2_mask_rcnn_r50_fpn_1x_coco"

SOURCE = "somebody's README"


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "published.json"
    entry = {"pretraining": "theirs", "column": "coco_1x", "metrics": {"AP_box": 41.0}, "source": SOURCE}
    path.write_text(json.dumps({"figures": [entry, {"pretraining": "elsewhere", "column": "other"}]}))
    return path


@pytest.fixture
def table(plan, result, published, tmp_path):
    for seed, miou in enumerate((20.0, 22.0, 27.0)):
        result(f"s{seed}.json", "slotcon", "linear_probe_masks_val", seed=seed, sha=str(seed), mIoU=miou)
    for step in ("slotcon", "moco"):  # the random arm is measured beside both: one run
        result(f"{step}/random.json", "random", "linear_probe_masks_val", sha=None, mIoU=12.5)
    result("coco.json", "slotcon", COCO, AP_box=30.04, AP_mask=28.0)
    result("mine.json", "mine", COCO, AP_box=31.0, AP_mask=29.0)
    result("foreign.json", "slotcon", "some_other_task", mIoU=99.0)
    runs, problems = collect([tmp_path / "results"])
    assert problems == []
    return build_table(plan, runs, published)


def test_every_cell_says_where_it_is_from(table):
    assert [title for title, _ in table.rows] == ["random init", "slotcon", "moco", "mine", "theirs"]
    cells = {
        (title, f"{column.title} {column.metric}"): cell
        for title, row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
    }
    assert len(cells) == 5 * 4
    probe = cells["slotcon", "probe mIoU"]
    assert (probe.kind, probe.values, probe.mean) == ("measured", (20.0, 22.0, 27.0), 23.0)
    assert probe.spread == pytest.approx(13**0.5)  # ((-3)^2 + (-1)^2 + 4^2) / 2
    assert probe.figure == "23.0 ± 3.6"
    assert [(seed, path.name) for seed, path in probe.sources] == [(0, "s0.json"), (1, "s1.json"), (2, "s2.json")]
    assert cells["random init", "probe mIoU"].values == (12.5,)
    assert cells["mine", "COCO AP_mask"].figure == "29.0"
    assert (cells["theirs", "COCO AP_box"].kind, cells["theirs", "COCO AP_box"].text) == ("published", SOURCE)
    assert cells["theirs", "COCO AP_mask"].text == "n/a"
    assert cells["slotcon", "camvid mIoU"].text == "to run: camvid/slotcon-seed0; about 3 h; data: masks, photos"
    assert cells["moco", "camvid mIoU"].text == "not in the plan"
    assert cells["mine", "probe mIoU"].text.startswith("to run: probe of ")
    assert all(cell.values or cell.text for cell in cells.values()), "a cell is blank"
    assert [problem.split(": ")[-1] for problem in table.problems] == ["task some_other_task is none of the plan's"]


def test_markdown_has_a_table_a_task_and_no_empty_cells(table, tmp_path):
    text = markdown(table, tmp_path)
    probe, coco, camvid = (part.splitlines() for part in text.split("### ")[1:])
    assert probe[:5] == [
        "probe",
        "",
        "| pretraining | mIoU |",
        "| --- | ---: |",
        "| random init | [12.5](results/moco/random.json) |",
    ]
    assert probe[5] == "| slotcon | 23.0 ± 3.6 ([1](results/s0.json) [2](results/s1.json) [3](results/s2.json)) |"
    assert "| slotcon | [30.0](results/coco.json) | [28.0](results/coco.json) |" in coco
    assert "| theirs | 41.0 [S1] | – |" in coco, "a published row with one of two figures"
    assert camvid[2].startswith("Nothing of it has been run yet: random init (about ")
    assert f"Published: [S1] {SOURCE}." in text
    assert "theirs" not in "\n".join(probe + camvid), "a published row says nothing of other tasks"


def test_figures_link_to_the_section_of_their_runs(table, tmp_path):
    page = tmp_path / "docs/results/small.md"
    text, runs = markdown(table, tmp_path, page), runs_page(table, page.parent)
    for link in set(re.findall(r"\(docs/results/small\.md#([\w-]+)\)", text)):
        assert link in {anchor(heading) for heading in re.findall("^## (.*)$", runs, re.MULTILINE)}
    assert "| slotcon | [23.0 ± 3.6](docs/results/small.md#slotcon-probe) |" in text
    section = runs.split("## slotcon: probe\n")[1].split("\n## ")[0]
    assert "| 1 | 22.0 | 0 | [results/s1.json](../../results/s1.json) |" in section
    assert "\n    python " in section


def test_a_run_without_one_of_the_metrics_shifts_no_figures(plan, result, tmp_path):
    for seed in range(3):
        mask = {} if seed == 1 else {"AP_mask": 20.0 + seed}
        result(f"{seed}.json", "slotcon", COCO, seed=seed, AP_box=30.0 + seed, **mask)
    table = build_table(plan, collect([tmp_path / "results"])[0], None)
    lines = re.findall(r"^(\| \d .*?) \| 0 \|", runs_page(table, tmp_path), re.MULTILINE)
    assert lines == ["| 0 | 30.0 | 20.0", "| 1 | 31.0 | –", "| 2 | 32.0 | 22.0"]
    assert table.problems == ("slotcon, COCO: AP_mask: without seed 1, of which other metrics are known",)


def test_a_brief_table_has_the_rows_that_are_measured_throughout(table, tmp_path):
    assert brief(table, tmp_path, tmp_path / "runs.md", ["probe", "coco"]).splitlines() == [
        "| pretraining | probe: mIoU | COCO: AP_box |",
        "| --- | ---: | ---: |",
        "| slotcon | [23.0 ± 3.6](runs.md#slotcon-probe) | [30.0](runs.md#slotcon-coco) |",
    ]
    with pytest.raises(ValueError, match="the plan has no task nothing"):
        brief(table, tmp_path, tmp_path / "runs.md", ["nothing"])


def test_csv_keeps_full_figures(table, tmp_path):
    rows = list(csv.DictReader(io.StringIO(csv_text(table, tmp_path))))
    assert len(rows) == 20
    found = {(row["pretraining"], row["metric"]): row for row in rows if row["task"] != "camvid"}
    assert found["slotcon", "AP_box"]["mean"] == "30.04"
    assert found["slotcon", "mIoU"]["values"] == "20.0 22.0 27.0"
    assert found["theirs", "AP_box"]["from"] == SOURCE


def test_page_is_self_contained_and_links_each_figure_to_its_file(table, tmp_path):
    page = table_page(table, tmp_path, ["ignored <x>: why"])
    assert page.count("src=") == page.count('src="data:image/png;base64,') == 3, "a chart a column that has a figure"
    assert "http" not in page
    assert "ignored &lt;x&gt;: why" in page
    assert '<a href="results/s1.json" title="seed 1">22.0</a>' in page
    assert page.count("23.0 ± 3.6") == 1
    assert page.count(">30.0</a>") == 1, "the figure of a single run is its link"
    assert SOURCE.replace("'", "&#39;") in page


def test_bars_are_as_long_as_their_figures_and_errors_as_their_spread():
    cells = {
        "a": Cell("measured", (20.0,), ((0, Path("a.json")),)),
        "b": Cell("published", (40.0,), text=SOURCE),
        "c": Cell("measured", (8.0, 12.0), ((0, Path("b.json")), (1, Path("c.json")))),
    }
    pixels = np.asarray(bar_chart(list(cells.items()))).astype(int)
    lengths = []
    for colour in ((0x2A, 0x6F, 0xB0), (0xB9, 0xB9, 0xB9)):
        hits = np.abs(pixels - colour).sum(axis=-1) < 12
        rows = hits.sum(axis=1)
        lengths.append([rows[rows > 20][k] for k in (1, -2)])
    (a, c), (b, _) = lengths
    assert b == pytest.approx(2 * a, abs=3)
    assert c == pytest.approx(a / 2, abs=a / 20)  # its error bar is drawn over it


def test_the_same_files_give_the_same_table(plan, result, tmp_path, published, table):
    again = build_table(plan, list(reversed(collect([tmp_path / "results"])[0])), published)
    assert markdown(again, tmp_path) == markdown(table, tmp_path)
    assert table_page(again, tmp_path) == table_page(table, tmp_path)


def test_rows_of_one_title_have_a_bar_each():
    bars = [("a", Cell("measured", (3.0,))), ("a", Cell("measured", (5.0,)))]
    assert bar_chart(bars).height > bar_chart(bars[:1]).height


def test_links_to_folders_with_blanks(tmp_path):
    assert relative(tmp_path / "my runs/a.json", tmp_path) == "my%20runs/a.json"


def test_corrupted_and_foreign_files_are_named_and_ignored(result, tmp_path):
    good = result("good.json", "slotcon", COCO, AP_box=1.0)
    folder = good.parent
    (folder / "cut.json").write_text(good.read_text()[:80])
    (folder / "theirs.json").write_text('{"AP": 3}')
    (folder / "nan.json").write_text(good.read_text().replace('"AP_box": 1.0', '"AP_box": NaN'))
    runs, problems = collect([folder])
    assert [run.path for run in runs] == [good]
    assert len(problems) == 3
    for name, why in (("cut", "is not JSON"), ("theirs", "is not a result file of schema"), ("nan", "finite number")):
        assert any(f"ignored {folder}/{name}.json" in line and why in line for line in problems)


def test_in_a_work_dir_only_what_steps_left_counts(result, tmp_path):
    work = tmp_path / "results"
    kept = result("probe/a/linear_checkpoint.json", "a", "t", m=1.0)
    changed = result("probe/b/result.json", "b", "t", m=1.0)
    running = result("probe/c/result.json", "c", "t", m=1.0)
    stray = result("stray.json", "d", "t", m=1.0)
    cut = work / "probe/d/result.json"
    cut.parent.mkdir()
    cut.write_text("{")
    notes = [kept.parent / "run.json", kept.parent / "metrics.json"]
    for path in notes:
        path.write_text('{"id": 1}\n{"id": 2}' if path.name == "metrics.json" else '{"id": 1}')
    for path in (kept, changed, running, cut):
        write_json(path.parent / "started.json", {})
    for path in (kept, changed, cut):
        outputs = [path, *(notes if path == kept else ())]
        write_json(path.parent / "step.json", {"outputs": {path.name: sha256_of(path) for path in outputs}})
    changed.write_text(changed.read_text().replace("1.0", "9.0"))
    (kept.parent / "log_of_the_framework.json").write_text("{}")
    runs, problems = collect([work])
    assert [run.path for run in runs] == [kept]
    assert [problem for problem in problems if str(cut) in problem and "is not JSON" in problem]
    assert sorted(problem for problem in problems if str(cut) not in problem) == [
        f"ignored {changed}: not the file that its step left",
        f"ignored {running}: its step has not ended",
        f"ignored {stray}: no step of this work dir left it",
    ]


def test_what_was_set_aside_is_left_out_and_a_row_of_a_like_name_is_not(result, tmp_path):
    kept = [result(f"probe/slotcon.{word}/result.json", "a", "t", m=1.0) for word in ("old1-seed0", "older_recipe")]
    aside = result("probe/slotcon.old12/result.json", "a", "t", m=1.0)
    runs, problems = collect([tmp_path / "results"])
    assert ([run.path for run in runs], problems) == (kept, [])
    assert [run.path for run in collect([aside.parent])[0]] == [aside]


def test_published_figures_have_sources_and_no_segmentation_figure_is_claimed(repo, tmp_path):
    entries = read_published(repo / "docs/published.json")
    by_row = {(e["pretraining"], e["column"]): e for e in entries}
    assert by_row["SlotCon, COCO, 800 epochs", "coco_mask_rcnn_r50_fpn_1x"]["metrics"] == {
        "AP_box": 41.0,
        "AP_mask": 37.0,
    }
    columns = {e["column"] for e in entries if "metrics" in e}
    assert columns == {"coco_mask_rcnn_r50_fpn_1x", "camvid_frozen_r18"}
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({"figures": [{"pretraining": "x", "column": "y", "metrics": {"AP": 1.0}}]}))
    with pytest.raises(ValueError, match="a source for its metrics"):
        read_published(bare)


def test_a_row_that_started_from_weights_is_called_by_what_it_is(plan, result, tmp_path):
    title = "ImageNet, then VADeR on 2,915 photos"
    for name, row in (("named", "mine"), ("unnamed", title)):
        result(f"{name}.json", row, COCO, AP_box=31.0, AP_mask=29.0)
        path = tmp_path / "results" / f"{name}.json"
        write_json(path, {**json.loads(path.read_text()), "title": title})
    rows = [name for name, _ in build_table(plan, collect([tmp_path / "results"])[0], None).rows]
    assert rows.count(title) == 2


def test_a_run_that_was_tested_too_counts_once(plan, result, tmp_path):
    result("run/result.json", "slotcon", "linear_probe_x", mIoU=20.0)
    tested = result("run/test_result.json", "slotcon", "linear_probe_x", mIoU=25.0)
    alone = result("other/test_result.json", "vader", "linear_probe_x", mIoU=30.0)
    runs, problems = collect([tmp_path / "results"])
    assert {run.path for run in runs} == {alone, tmp_path / "results/run/result.json"}
    assert problems == [f"ignored {tested}: a test of the run whose result.json lies beside it"]
