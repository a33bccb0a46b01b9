import json
import math
import os

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from slotcon_plugin.visualization.curves import plot_runs, smooth
from slotcon_plugin.visualization.run import plot_run
from slotcon_plugin.visualization.run_figures import TITLES, Run, figures_of, read_run, split_head, title_of


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def work_dir(tmp_path):
    """A run of 2 epochs of 10 iterations, stopped at 16 and resumed from 10."""
    folder = tmp_path / "mine"
    log = [{"iter": i, "epoch": 1 + (i > 10), "step": i, "loss": 100.0 + i, "lr": 0.1 * i} for i in (4, 8, 12, 16)]
    write(folder / "20260101_000000/vis_data/scalars.json", log)
    log = [{"iter": i, "epoch": 2, "step": i, "loss": 200.0 + i, "lr": 0.2 * i} for i in (14, 18)]
    write(folder / "20260102_000000/vis_data/scalars.json", [*log, {"mIoU": 31.5, "step": 2}])
    reports = [
        {"iter": 5, "epoch": 1, "loss": 5.0, "num_prototypes": 8, "live_prototypes": 6, "teacher_entropy": 1.5},
        {"iter": 10, "epoch": 1, "loss": None, "num_prototypes": 8, "live_prototypes_epoch": 7, "dead_prototypes": [3]},
        {"iter": 20, "epoch": 2, "loss": 3.0, "num_prototypes": 8, "live_prototypes_epoch": 8, "dead_prototypes": []},
    ]
    write(folder / "health.jsonl", reports)
    with open(folder / "health.jsonl", "a") as file:
        file.write('{"iter": 25, "lo')  # the run goes on while we look
    return folder


def test_a_run_is_read_from_both_files(work_dir):
    run = read_run(work_dir)
    assert run.name == "mine"
    assert run.iterations_per_epoch == 10
    x, y = run.curve("loss")
    assert x.tolist() == [5, 10, 20]
    assert y.tolist()[::2] == [5.0, 3.0]
    assert math.isnan(y[1])
    # what the stopped run logged after 14 is replaced by the resumed one
    assert run.figures["lr"] == {4: 0.4, 8: 0.8, 12: pytest.approx(1.2), 14: pytest.approx(2.8), 18: pytest.approx(3.6)}
    assert run.figures["mIoU"] == {20: 31.5}  # an evaluation says the epoch only
    assert "dead_prototypes" not in run.figures
    assert run.curve("loss", by_epoch=True)[0].tolist() == [0.5, 1, 2]


def test_starts_with_other_batches_share_one_axis(tmp_path):
    """4 iterations an epoch, then, from the end of the fourth on, 2."""

    def start(steps, probes):
        return [
            {"iterations_per_epoch": steps, "step": probes[0]},
            *({"probe/mIoU": 1.0 + i / steps, "iter": i, "step": i} for i in probes),
        ]

    write(tmp_path / "20260101_000000/vis_data/scalars.json", [*start(4, (0, 4, 8, 12, 16)), {"lr": 0.1, "iter": 5}])
    write(tmp_path / "20260102_000000/vis_data/scalars.json", start(2, (8, 10, 12)))
    write(tmp_path / "health.jsonl", [{"iter": 12, "epoch": 6, "loss": 1.0, "iterations_per_epoch": 2}])
    run = read_run(tmp_path)
    epochs, values = run.curve("probe/mIoU", by_epoch=True)
    assert epochs.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert values.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert run.figures["lr"] == {3: 0.1}
    assert figures_of([run]) == ["loss", "lr", "probe/mIoU"]


@pytest.mark.parametrize(
    ("records", "length"),
    [
        ([{"iter": 10, "epoch": 1}, {"iter": 15, "epoch": 1}, {"iter": 25, "epoch": 2}], 15),
        ([{"iter": 10, "epoch": 1, "iterations_per_epoch": 231}], 231),
        ([{"iter": 10, "epoch": 1}], None),
        ([{"iter": 20, "epoch": 1, "live_prototypes_epoch_p2": 3}], 20),
    ],
)
def test_the_length_of_an_epoch_is_that_of_one_that_ended(tmp_path, records, length):
    write(tmp_path / "r/health.jsonl", [{"loss": 1.0, **record} for record in records])
    write(tmp_path / "r/1/vis_data/scalars.json", [{"iter": 40, "epoch": 3, "step": 40, "loss": 1.0}])
    assert read_run(tmp_path / "r").iterations_per_epoch == length


def test_a_run_without_figures_says_so(tmp_path):
    write(tmp_path / "r/health.jsonl", [])
    with pytest.raises(ValueError, match="r: no figures yet"):
        plot_run([str(tmp_path / "r")], str(tmp_path / "x.png"), None, None, "iter", 1)


def test_without_the_hooks_file_mmengines_is_enough(work_dir):
    (work_dir / "health.jsonl").unlink()
    run = read_run(work_dir, name="other")
    assert run.name == "other"
    assert run.figures["loss"] == {4: 104, 8: 108, 12: 112, 14: 214, 18: 218}


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nothing: expected the work dir of a run, with health\.jsonl"):
        read_run(tmp_path / "nothing")
    with pytest.raises(ValueError, match="does not say how long an epoch is"):
        Run("x", {"loss": {1: 2.0}}).curve("loss", by_epoch=True)


def test_known_figures_come_first_and_unknown_ones_are_asked_for_in_vain(work_dir):
    run = read_run(work_dir)
    order = ["loss", "teacher_entropy", "live_prototypes", "live_prototypes_epoch", "lr", "mIoU"]
    assert figures_of([run]) == order
    assert figures_of([run], ["mIoU", "loss"]) == ["mIoU", "loss"]
    with pytest.raises(ValueError, match="no run has accuracy; there are live_prototypes, live_prototypes_epoch, loss"):
        figures_of([run], ["accuracy"])


def test_smooth_against_a_loop():
    values = np.array([1.0, np.nan, 4.0, 2.0, np.nan, np.nan, 8.0])
    want = []
    for i in range(len(values)):
        window = [v for v in values[max(0, i - 1) : i + 1] if not math.isnan(v)]
        want.append(sum(window) / len(window) if window else math.nan)
    np.testing.assert_allclose(smooth(values, 2), want)
    np.testing.assert_array_equal(smooth(values, 1), values)


def test_smooth_after_a_huge_value():
    values = np.array([3, 1e20, math.inf, 3, 4, 5])
    np.testing.assert_array_equal(smooth(values, 1), [3, 1e20, math.nan, 3, 4, 5])
    np.testing.assert_allclose(smooth(values, 2), [3, 5e19, 1e20, 3, 3.5, 4.5])
    np.testing.assert_allclose(smooth(values[3:], 99), [3, 3.5, 4])
    assert smooth(np.array([]), 3).size == 0


def test_figures_of_a_head_are_told_by_its_name():
    names = ("num_prototypes", "used_prototypes", "live_prototypes", "live_prototypes_epoch", "loss_group", "loss")
    run = Run("a", {f"{name}{head}": {1: 4.0} for name in names for head in ("", "_p2")})
    assert figures_of([run]) == [
        *("loss", "loss_group", "loss_group_p2", "live_prototypes", "live_prototypes_p2"),
        *("live_prototypes_epoch", "live_prototypes_epoch_p2", "loss_p2"),
    ]
    assert split_head("live_prototypes_epoch_p2") == ("live_prototypes_epoch", "p2")
    assert split_head("live_prototypes_epoch") == ("live_prototypes_epoch", "")
    assert title_of("teacher_entropy_p2") == "p2: teacher entropy (nats); dashed: ln K"
    assert title_of("loss_p2") == "loss_p2", "a loss of which nothing is known"
    run.figures["num_prototypes_p2"] = {1: 16}
    assert [run.num_prototypes(name) for name in ("live_prototypes", "live_prototypes_p2")] == [4, 16]
    assert run.num_prototypes("live_prototypes_p3") is None


def test_names_of_any_kind_are_in_the_legend(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    names, legend = [], Figure.legend

    def noted(canvas, lines, labels, **options):
        names.append(labels)
        return legend(canvas, lines, labels, **options)

    monkeypatch.setattr(Figure, "legend", noted)
    folders = [tmp_path / name for name in ("_base", "a$b^$", os.fsdecode(b"latin-\xe9"))]
    for folder in folders:
        write(folder / "health.jsonl", [{"iter": 1, "loss": 2.0}, {"iter": 2, "loss": 1.0}])
    for suffix in ("png", "html"):
        out = plot_run([str(folder) for folder in folders], str(tmp_path / f"x.{suffix}"), None, None, "iter", 1)
    assert names == [["_base", "a$b^$", "latin-\\xe9"]]
    assert "latin-\\xe9" in out.read_text(encoding="utf-8")


def test_a_line_is_drawn_where_its_values_are():
    falling = Run("falling", {"loss": {i: 10.0 - i for i in range(1, 9)}})
    flat = Run("flat", {"loss": dict.fromkeys(range(1, 9), 0.0)})
    picture = np.asarray(plot_runs([falling, flat], ["loss"])).astype(int)
    blue = np.argwhere(np.abs(picture - (0x00, 0x72, 0xB2)).sum(axis=-1) < 30)
    orange = np.argwhere(np.abs(picture - (0xD5, 0x5E, 0x00)).sum(axis=-1) < 30)
    plotted = blue[blue[:, 0] > picture.shape[0] * 0.2]  # without the legend
    left, right = plotted[plotted[:, 1].argmin()], plotted[plotted[:, 1].argmax()]
    assert left[0] < right[0] - 50  # it falls (rows grow downwards)
    assert orange[:, 0].max() > plotted[:, 0].max()


def test_the_tool_writes_one_file(work_dir, tmp_path):
    options = dict(names=["a"], figures=None, x="epoch", smooth=2)
    assert plot_run([str(work_dir)], str(tmp_path / "out.png"), **options).read_bytes()[:4] == b"\x89PNG"
    page = plot_run([str(work_dir)], str(tmp_path / "out.html"), **options).read_text()
    assert "Curves of a" in page
    with pytest.raises(ValueError, match="expected 1 names, one a run, got 2"):
        plot_run([str(work_dir)], str(tmp_path / "out.png"), **{**options, "names": ["a", "b"]})


def test_no_title_runs_into_the_next_chart(tmp_path, monkeypatch):
    figures = {**dict.fromkeys(TITLES, 10_000.0), "a_figure_of_ones_own_" * 4: 1.0}
    write(tmp_path / "health.jsonl", [{"iter": i, "epoch": 1, **figures} for i in (1, 2)])
    monkeypatch.setattr("slotcon_plugin.visualization.curves.draw", lambda canvas: canvas)
    run = read_run(tmp_path)
    canvas = plot_runs([run], figures_of([run]))
    FigureCanvasAgg(canvas).draw()
    edges = [*sorted({round(axes.get_window_extent().x0) for axes in canvas.axes}), canvas.bbox.x1]
    for axes in canvas.axes:
        title = axes._left_title.get_window_extent()
        assert title.x1 < next(edge for edge in edges if edge > title.x0 + 10), axes.get_title("left")
