"""Names out of COCO's annotation files, wherever the array stands, without the memory that annotations would take."""

import json
import subprocess
import sys

import pytest

from slotcon_plugin.data import coco
from slotcon_plugin.data.coco import read_file_names
from slotcon_plugin.errors import UserError

IMAGES = [
    {"id": 7, "file_name": "b.jpg", "license": 1},
    {"file_name": 'sub/ü " ] [ { } , \\ \u2028.jpg', "meta": {"images": None, "tags": [1, [2, "]"]]}, "id": 1},
    {"id": 2, "file_name": "a.jpg"},
]
NAMES = [image["file_name"] for image in IMAGES]
INFO = {"description": 'says "images": [ and more'}
ANNOTATIONS = [{"id": k, "segmentation": [[k, 1.5] * 9], "caption": "images"} for k in range(50)]
FILES = {
    "as COCO orders it": {"info": INFO, "images": IMAGES, "annotations": ANNOTATIONS},
    "annotations first": {"annotations": ANNOTATIONS, "images": IMAGES},
    "another array of that name": {"info": {"images": [{"file_name": "no"}]}, "images": IMAGES},
    "the other one last": {"images": IMAGES, "info": {"images": [{"file_name": "no"}]}},
}


@pytest.mark.parametrize("block", [1, 7, 64, 2**22])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_names_as_a_full_parse_gives_them(tmp_path, monkeypatch, content, ascii, indent, block):
    monkeypatch.setattr(coco, "_BLOCK", block)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content, ensure_ascii=ascii, indent=indent), encoding="utf-8")
    assert read_file_names(path) == [image["file_name"] for image in json.loads(path.read_bytes())["images"]] == NAMES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        '{"images": {}}',
        '{"images": [',
        '{"images": [1, 2]}',
        '{"images": [{"id": 3}]}',
        '{"images": [{"file_name": 3}]}',
        '{"images": [{"file_name": "a\\u0000.jpg"}]}',
        '{"images": [{"file_name": "a.jpg"}, {"file_na',
        '{"images": [{"file_name": "a.jpg"} oh, {"file_name": "b.jpg"}]}',
        '{"images": [], "x": {"images": [',
    ],
)
def test_what_is_no_whole_annotation_file_is_named(tmp_path, text):
    path = tmp_path / "wro\nng.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"wro\\nng\.json is not a whole COCO annotation file: "):
        read_file_names(path)


def test_bytes_that_are_not_utf8_are_told(tmp_path):
    path = tmp_path / "latin.json"
    path.write_bytes('{"images": [{"file_name": "é.jpg"}]}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.json is not a whole COCO annotation file: UnicodeDecodeError"):
        read_file_names(path)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["images", "annotations"])
def test_a_file_as_large_as_train2017_costs_little(tmp_path, first):
    """118,000 photos and 440 MB: below 5 s and 100 MB of memory beyond what the process had."""
    path, root = tmp_path / "instances.json", tmp_path / "train2017"
    root.mkdir()
    image = {
        "license": 3,
        "file_name": "NAME",
        "coco_url": "http://images.cocodataset.org/train2017/NAME",
        "height": 360,
        "width": 640,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
        "id": 9,
    }
    outline = {"segmentation": [[239.97, 260.24] * 16], "area": 2765.1, "iscrowd": 0, "image_id": 9, "bbox": [1] * 4}
    one, outline = json.dumps(image), json.dumps(outline)
    parts = {
        "images": ", ".join(one.replace("NAME", f"{k:012}.jpg") for k in range(118_000)),
        "annotations": ", ".join([outline] * (400_000_000 // len(outline))),
    }
    with open(path, "w") as file:
        keys = sorted(parts, reverse=first == "images")
        file.write("{" + ", ".join(f'"{key}": [{parts[key]}]' for key in keys) + "}")
    assert path.stat().st_size > 400e6
    (root / f"{0:012}.jpg").touch()
    code = (
        "import re, sys, time\n"
        "from slotcon_plugin.data import CocoImages\n"
        "from pathlib import Path\n"
        "memory = lambda key: int(re.search(rf'{key}:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024\n"
        "before, start = memory('VmRSS'), time.process_time()\n"
        "source = CocoImages(*sys.argv[1:])\n"
        "print(len(source), memory('VmHWM') - before, memory('VmHWM'), time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code, path, root], capture_output=True, text=True, check=True)
    count, megabytes, total, seconds = map(float, done.stdout.split())
    print(f"{megabytes:.0f} MB more, {total:.0f} MB in all, {seconds:.2f} s")
    assert count == 118_000
    assert megabytes < 100
    assert seconds < 5
