import copy
import os
import re
from pathlib import Path

import pytest

from slotcon_plugin.visualization.run import visualize_groups, visualize_prototypes

GROUPS = dict(limit=4, short_side=64, branch="teacher", device="cpu")
PROTOTYPES = dict(limit=4, prototypes=None, most_used=2, nearest=2, short_side=64, device="cpu")


@pytest.fixture
def untrained(model):
    """The same network, whose prototypes own other colours."""
    other = copy.deepcopy(model)
    other.teacher["grouping"].prototypes.data = model.prototypes().flip(0)
    return other


@pytest.fixture
def loaded(model, untrained, monkeypatch):
    """Models come from no file; what they were asked for."""
    asked = []

    def load(config, checkpoint, device="cpu", trained=True):
        asked.append((config, checkpoint, device, trained))
        return model if trained else untrained

    monkeypatch.setattr("slotcon_plugin.visualization.run.load_pretrainer", load)
    return asked


@pytest.fixture
def photos(halves, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(3):
        halves(tmp_path / "photos" / f"{i}.png", (200, 30, 30), (30, 30, 200))
    return [str(tmp_path / "photos")]


@pytest.mark.usefixtures("loaded")
def test_a_page_shows_each_photo_and_each_prototype(photos, tmp_path):
    page = visualize_groups("config", "c.pth", photos, str(tmp_path / "g.html"), **GROUPS).read_text()
    assert page.count("<figure>") == 3
    assert "2.png" in page
    page = visualize_prototypes("config", "c.pth", photos, str(tmp_path / "p.html"), **PROTOTYPES).read_text()
    assert page.count("<figure>") == 2
    assert "prototype 0" in page
    assert "prototype 2" in page
    assert "in 3 photos" in page


def test_a_page_puts_an_untrained_network_beside_the_trained_one(loaded, model, untrained, photos, tmp_path):
    """Loaded from the same files, and asked for the same branch and head."""
    drawn = []
    for name, network in (("trained", model), ("untrained", untrained)):
        network.heads, network.shown_head, group = ("encoder", "p2"), "p2", network.group

        def noted(images, branch="teacher", name=name, network=network, group=group):
            drawn.append((name, branch, network.shown_head))
            return group(images, branch)

        network.group = noted
    options = GROUPS | {"limit": 1, "branch": "student", "head": "encoder"}
    page = visualize_groups("config", "c.pth", photos, str(tmp_path / "g.html"), **options).read_text()
    assert loaded == [("config", "c.pth", "cpu", True), ("config", "c.pth", "cpu", False)]
    assert drawn == [("trained", "student", "encoder"), ("untrained", "student", "encoder")]
    pictures = dict(re.findall(r'alt="[^"]*: (trained|untrained)" src="([^"]+)"', page))
    assert len({*pictures.values()}) == 2


@pytest.mark.usefixtures("loaded")
def test_a_page_says_what_the_network_beside_it_is(model, photos, tmp_path):
    """Without training the network has random weights, also where the run began with others."""
    told = {None: "the same network before training", "ImageNet": "with random weights, not those that this run began"}
    for title, words in told.items():
        model.init = title and {"title": title}
        page = visualize_groups("config", "c.pth", photos, str(tmp_path / "g.html"), **GROUPS).read_text()
        assert [words in page for words in told.values()] == [words == one for one in told.values()]


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_names_and_contents_of_any_kind(photos, tmp_path, suffix):
    folder = Path(photos[0])
    for name in ("new\nline.png", os.fsdecode(b"latin-\xe9.png"), "folder.jpg/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "0.png").read_bytes())
    (folder / "broken.png").write_bytes(b"no photo")
    (folder / "loop").symlink_to(folder)
    checkpoint = os.fsdecode(b"k\xe9.pth")
    for write, options in ((visualize_groups, GROUPS), (visualize_prototypes, PROTOTYPES)):
        out = write("config", checkpoint, photos, str(tmp_path / f"out{suffix}"), **{**options, "limit": 99})
        assert out.stat().st_size > 1000
    if suffix == ".html":
        out = visualize_groups("config", "c.pth", photos, str(out), **{**GROUPS, "limit": 99})
        text = out.read_text(encoding="utf-8")
        assert "new\\nline.png" in text and "latin-\\xe9.png" in text and "broken" not in text
        assert text.count("<figure>") == 6


@pytest.mark.usefixtures("loaded")
def test_nothing_to_draw_is_said(photos, tmp_path):
    with pytest.raises(ValueError, match="no prototype owns 2 % of one of these 3 photos"):
        visualize_prototypes("config", "c.pth", photos, str(tmp_path / "p.png"), **{**PROTOTYPES, "most_used": 0})


@pytest.mark.usefixtures("loaded")
def test_an_unknown_prototype_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match=r"prototypes 0 to 3, not \[4, -1\]"):
        visualize_prototypes(
            "config", "c.pth", photos, str(tmp_path / "p.png"), **{**PROTOTYPES, "prototypes": [1, 4, -1]}
        )


def test_missing_and_broken_files_are_named(photos, tmp_path, repo):
    out = str(tmp_path / "g.png")
    config = str(repo / "configs/pretrain/slotcon_demo.py")
    with pytest.raises(ValueError, match=r"no config .*nowhere\.py"):
        visualize_groups(str(tmp_path / "nowhere.py"), "c.pth", photos, out, **GROUPS)
    with pytest.raises(ValueError, match=r"no checkpoint .*c\.pth"):
        visualize_groups(config, str(tmp_path / "c.pth"), photos, out, **GROUPS)
    (tmp_path / "c.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(ValueError, match=r"c\.pth is no whole checkpoint"):
        visualize_groups(config, str(tmp_path / "c.pth"), photos, out, **GROUPS)
