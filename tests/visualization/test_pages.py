"""The pages as a browser shows them, where there is one (Chromium or Chrome)."""

import base64
import io
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from slotcon_plugin.page import picture_data
from slotcon_plugin.visualization.curves_page import HEALTHY, HEALTHY_OF_K, curves_page
from slotcon_plugin.visualization.grouped import GroupedPhoto
from slotcon_plugin.visualization.groups_page import groups_page
from slotcon_plugin.visualization.run_figures import Run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome here")
# Put behind a page: the pointer goes to the middle of the first chart, errors become text.
POINT = """<script>
const chart = document.querySelector('#charts svg'), box = chart.getBoundingClientRect();
chart.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width * %f, clientY: box.top + 9}));
</script>"""


def shown(page: str, folder) -> str:
    """The document after its scripts have run."""
    page = str(page).replace("<body>", "<body><script>onerror = m => document.title = 'ERROR ' + m</script>", 1)
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1200,900", "--virtual-time-budget=2000", "--dump-dom", f"file://{folder / 'page.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in re.search("<title>(.*?)</title>", done.stdout)[1], done.stdout[:400]
    return done.stdout


@pytest.fixture
def runs():
    steps = range(10, 110, 10)
    good = {"loss": {i: 5 - i / 50 for i in steps}, "effective_rank": dict.fromkeys(steps, 20.0)}
    good |= {"grad_norm": {i: 10 ** (i / 30) for i in steps}, "num_prototypes": {10: 64}}
    bad = {"loss": {i: math.nan if i == 50 else 4.0 for i in steps}, "effective_rank": dict.fromkeys(steps, 1.1)}
    return [Run("good <&> run", good, 10.0), Run("bad", bad, 10.0)]


@in_a_browser
def test_curves_are_drawn_and_read_off_with_the_pointer(runs, tmp_path):
    page = str(curves_page("Curves", runs, ["loss", "effective_rank", "grad_norm"]))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "nothing is downloaded"
    middle = (46 + 0.5 * (400 - 46 - 8)) / 400
    dom = shown(page.replace("</body>", POINT % middle + "</body>"), tmp_path)
    assert dom.count('class="line"') == 6 and dom.count('class="healthy"') == 1
    values = re.findall('<div class="values">(.*?)</div>', dom)
    assert values[0] in (
        "good &lt;&amp;&gt; run: 4 at iteration 50  ·  bad: – at iteration 50",
        "good &lt;&amp;&gt; run: 3.8 at iteration 60  ·  bad: 4 at iteration 60",
    ), values
    assert values[1].startswith("good &lt;&amp;&gt; run: 20 at iteration"), "all charts show the same place"
    paths = re.findall(r'<path d="([^"]*)"', dom)
    assert paths[1].count("M") == 2, "a gap where the value is not finite"


@in_a_browser
def test_smoothed_curves_and_runs_without_a_value(tmp_path):
    empty = Run("empty", {"loss": {1: math.nan, 2: math.inf}}, 1.0)
    one = Run("one", {"loss": {1: 2.0}}, 1.0)
    assert "no finite value" in shown(curves_page("Curves", [empty], ["loss"]), tmp_path)
    dom = shown(curves_page("Curves", [empty, one], ["loss"], by_epoch=True, window=3), tmp_path)
    assert dom.count('class="raw"') == 2


def test_a_picture_that_is_wider_than_webp_knows_is_shown_smaller():
    data = picture_data(Image.new("RGB", (16500, 40)))
    assert Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).size[0] == 16383


def test_healthy_ranges_lie_within_what_is_possible():
    assert HEALTHY == {"num_queries": (2, None), "effective_rank": (10, None), "data_time_share": (0, 0.1)}
    for size in (2, 16, 256, 2048):
        most = {"teacher_entropy": math.log(size), "usage_entropy": math.log(size), "live_prototypes_epoch": size}
        assert HEALTHY_OF_K.keys() == most.keys()
        for name, bounds in HEALTHY_OF_K.items():
            low, high = bounds(size)
            assert 0 <= low < high <= most[name], (name, size)


def charts_of(page: str) -> list[dict]:
    return json.loads(re.search('id="data">(.*?)</script>', page)[1])["charts"]


def test_a_healthy_range_is_that_of_the_one_number_of_prototypes_that_is_known():
    def run(**sizes):
        figures = {"teacher_entropy": {1: 1.0}, "teacher_entropy_p2": {1: 1.0}, "effective_rank": {1: 20.0}}
        return Run("a", figures | {name: {1: size} for name, size in sizes.items()})

    def charts(*runs):
        return charts_of(curves_page("Curves", runs, ["teacher_entropy", "teacher_entropy_p2", "effective_rank"]))

    of_encoder, of_head, rank = charts(run(num_prototypes=64, num_prototypes_p2=16), run())
    assert of_encoder["limits"] == [math.log(64)] and of_head["limits"] == [math.log(16)]
    assert of_head["healthy"] == [0.05 * math.log(16), 0.97 * math.log(16)] and of_head["zero"]
    assert rank["healthy"] == [10, None]
    for runs in ([run()], [run(num_prototypes=64), run(num_prototypes=32)]):
        of_encoder, of_head, rank = charts(*runs)
        assert of_encoder["healthy"] is of_head["healthy"] is None and rank["healthy"]
    page = curves_page("Curves", [run()], ["teacher_entropy"])
    assert "range of a healthy run" not in page, "there is none to be seen"


def test_more_runs_than_colours_have_dashes():
    page = curves_page("Curves", [Run(f"run {i}", {"loss": {1: 1.0, 2: 2.0}}) for i in range(13)], ["loss"])
    lines = charts_of(page)[0]["runs"]
    assert len({(line["color"], line["dash"]) for line in lines}) == 13
    assert [line["dash"] for line in lines[:6]] == [""] * 6
    in_legend = re.findall(r'stroke="(.*?)".*?stroke-dasharray="(.*?)"', page[: page.index("<script")])
    assert in_legend == [(line["color"], line["dash"]) for line in lines]


@in_a_browser
def test_groups_have_a_legend_three_columns_and_small_pictures(tmp_path):
    photo = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    halves = np.zeros((480, 640), dtype=int)
    halves[:, 400:] = 2
    trained, untrained = (GroupedPhoto("a <b>.jpg", photo, owners, 4) for owners in (halves, 0 * halves))
    page = groups_page("Groupings", [trained] * 3, [untrained] * 3)
    dom = shown(page, tmp_path)
    legend = re.search(r'<p class="legend">(.*?)</p>', dom, re.DOTALL)[1]
    assert re.findall(r"(\d): ([\d.]+) %", legend) == [("0", "62.5"), ("2", "37.5")]
    assert dom.count("<img") == 9 and dom.count('src="data:image/webp') == 9
    assert dom.count("a &lt;b&gt;.jpg</figcaption>") == 3
    assert len(page) < 9 * 120_000, "noise is the worst that WebP can meet"
    assert "untrained" not in groups_page("Groupings", [trained])
