from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from slotcon_plugin.demo_scenes import CLASSES, make_demo_scenes, render_scene
from slotcon_plugin.demo_scenes import layouts as demo_layouts
from slotcon_plugin.errors import UserError
from slotcon_plugin.evaluation import LabelledSet, open_labelled_set
from slotcon_plugin.evaluation.coco_stuff import COARSE_CLASSES, FINE_TO_COARSE
from slotcon_plugin.evaluation.labelled_set import resize_image, resize_label
from slotcon_plugin.evaluation.metrics import IGNORE
from slotcon_plugin.evaluation.readers import CITYSCAPES_LABEL_IDS, value_table, with_same_classes

SIZE = (64, 48)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")

    def get(layout):
        splits = {"train": 2, "val": 3} | ({"test": 1} if layout == "camvid" else {})
        return make_demo_scenes(root / layout, splits, SIZE, layout=layout)

    return get


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def small_folder(root, masks, classes="a\nb\n"):
    for k, mask in enumerate(masks):
        save(root / "images" / "val" / f"{k}.jpg", np.zeros((4, 6, 3), np.uint8))
        save(root / "annotations" / "val" / f"{k}.png", np.asarray(mask, np.uint8))
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


@pytest.mark.parametrize(
    ("layout", "num_classes", "ids"),
    [
        ("plain", 11, {name: k for k, name in enumerate(CLASSES)}),
        ("camvid", 11, demo_layouts.CAMVID_IDS),
        ("voc", 21, demo_layouts.VOC_IDS),
        ("ade20k", 150, {name: k - 1 for name, k in demo_layouts.ADE20K_IDS.items()}),
        ("cityscapes", 19, {name: entry[0] for name, entry in demo_layouts.CITYSCAPES_IDS.items()}),
    ],
)
def test_every_layout_is_recognised_and_means_the_same(demo, layout, num_classes, ids):
    data = open_labelled_set(demo(layout), "val")
    assert (len(data), len(data.classes)) == (3, num_classes)
    for index in range(3):
        scene = render_scene(0, 1_000_000 + index, SIZE)
        item = data.read(index)
        np.testing.assert_array_equal(item.label, np.array([ids[name] for name in CLASSES])[scene.semantic])
        assert np.abs(item.image.astype(float) - scene.image).mean() < 8


def test_coco_stuff_is_merged_to_27_classes(demo):
    data = open_labelled_set(demo("coco"), "val")
    assert data.classes == COARSE_CLASSES
    coarse = {"sky": "sky-stuff", "grass": "plant-stuff", "gravel": "ground-stuff", "water": "water-stuff",
              "tiles": "floor-stuff", "ball": "sports", "car": "vehicle", "crate": "accessory",
              "mushroom": "accessory", "sheep": "animal", "tree": "furniture"}  # fmt: skip
    table = np.array([COARSE_CLASSES.index(coarse[name]) for name in CLASSES])
    for index in range(3):
        np.testing.assert_array_equal(data.read(index).label, table[render_scene(0, 1_000_000 + index, SIZE).semantic])


@pytest.mark.parametrize(
    ("coco_id", "coarse"),
    [(1, "person"), (2, "vehicle"), (10, "outdoor"), (16, "animal"), (27, "accessory"), (34, "sports"), (44, "kitchen"),
     (52, "food"), (62, "furniture"), (72, "electronic"), (78, "appliance"), (84, "indoor"), (92, "textile-stuff"),
     (97, "plant-stuff"), (102, "ceiling-stuff"), (106, "sky-stuff"), (149, "ground-stuff"), (155, "water-stuff"),
     (171, "wall-stuff"), (180, "window-stuff"), (182, "solid-stuff")],
)  # fmt: skip
def test_coarse_table_at_known_labels(coco_id, coarse):
    assert COARSE_CLASSES[FINE_TO_COARSE[coco_id - 1]] == coarse


def test_coarse_table_covers_everything():
    assert len(FINE_TO_COARSE) == 182
    assert set(FINE_TO_COARSE[:91]) == set(range(12))
    assert set(FINE_TO_COARSE[91:]) == set(range(12, 27))


def test_picie_list_and_geometry(demo, tmp_path):
    source = demo("coco")
    for kind, target in (("val2017", "images/val2017"), ("stuffthingmaps/val2017", "annotations/val2017")):
        (tmp_path / target).parent.mkdir(exist_ok=True)
        (tmp_path / target).symlink_to(source / kind)
    names = sorted(path.stem for path in (source / "val2017").iterdir())
    listing = tmp_path / "curated" / "val2017" / "Coco164kFull_Stuff_Coarse_7.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text(f"{names[2]}\n{names[0]}\n")
    data = open_labelled_set(tmp_path, "val", protocol="picie")
    assert [photo.stem for photo, _ in data.items] == [names[2], names[0]]
    item = data.read(0)
    assert item.image.shape == (320, 320, 3)
    whole = open_labelled_set(tmp_path, "val").read(0).label  # 48 x 64 -> 320 x 426, columns 53 to 372 are kept
    columns = ((np.arange(53, 373) + 0.5) * 64 / 426).astype(int)
    rows = ((np.arange(320) + 0.5) * 48 / 320).astype(int)
    np.testing.assert_array_equal(item.label, whole[rows][:, columns])


def test_cityscapes_label_ids_serve_where_train_ids_are_missing(demo, tmp_path):
    source = demo("cityscapes")
    (tmp_path / "leftImg8bit").symlink_to(source / "leftImg8bit")
    for path in (source / "gtFine" / "val" / "demo").glob("*_labelIds.png"):
        save(tmp_path / "gtFine" / "val" / "demo" / path.name, np.asarray(Image.open(path)))
    a, b = open_labelled_set(source, "val"), open_labelled_set(tmp_path, "val")
    for index in range(3):
        np.testing.assert_array_equal(a.read(index).label, b.read(index).label)
    assert len(CITYSCAPES_LABEL_IDS) == 19


def test_palette_masks_give_indices_and_ignored_values_are_ignored(tmp_path):
    root = small_folder(tmp_path, [], "a\nb\nvoid (ignore=11)\n")
    save(root / "images" / "val" / "x.png", np.zeros((2, 2, 3), np.uint8))
    mask = Image.fromarray(np.array([[0, 1], [11, 255]], np.uint8), "P")
    mask.putpalette([200, 10, 30] * 256)
    (root / "annotations" / "val").mkdir(parents=True)
    mask.save(root / "annotations" / "val" / "x.png")
    data = open_labelled_set(root)
    assert data.classes == ("a", "b")
    assert data.read(0).label.tolist() == [[0, 1], [IGNORE, IGNORE]]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("camvid/test", "camvid_test"),
        ("street scenes 2023/val", "street_scenes_2023_val"),
        ("cocostuff27/val (2,175 photos)", "cocostuff27_val"),
        ("a (b) c/val", "a_(b)_c_val"),
    ],
)
def test_tasks_of_different_sets_differ(name, task):
    assert LabelledSet(name, (), (), value_table({})).task == task


def test_a_folder_is_called_by_its_own_name(tmp_path, monkeypatch):
    small_folder(tmp_path / "mine", [np.eye(2)])
    monkeypatch.chdir(tmp_path / "mine")
    assert open_labelled_set(".", "val").name == "mine/val"


def test_a_split_without_photos_is_named(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "leftImg8bit" / split / "x").mkdir(parents=True)
        save(tmp_path / "leftImg8bit" / split / "x/frame1.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(UserError, match="no labelled photo of split val where layout cityscapes has them"):
        open_labelled_set(tmp_path, "val")


def test_classes_are_counted_without_a_list(tmp_path):
    root = small_folder(tmp_path, [np.full((4, 6), 2), np.full((4, 6), 255)], classes=None)
    assert open_labelled_set(root).classes == ("class 0", "class 1", "class 2")


def test_masks_of_0_and_255_are_refused(tmp_path):
    binary = np.zeros((4, 6))
    binary[:2] = 255
    root = small_folder(tmp_path, [binary, binary], classes=None)
    expect(r"one class only \(0; 255 is ignored\).*store the object as 1", lambda: open_labelled_set(root))


def test_a_list_of_classes_from_windows_has_no_mark_in_its_first_name(tmp_path):
    root = small_folder(tmp_path, [np.zeros((4, 6))])
    (root / "classes.txt").write_bytes("background\r\nsky\r\n".encode("utf-8-sig"))
    assert open_labelled_set(root).classes == ("background", "sky")


@pytest.mark.parametrize(("content", "message"), [
    ("straße\nhimmel\n".encode("cp1252"), "expected UTF-8, got another encoding .*save it as UTF-8"),
    (b"a\nb\nvoid (ignore=300)\n", r"\(ignore=300\): expected a value that a mask can hold, 0 to 255"),
    (b"a\n" * 256, "expected at most 255 names, for the values below 255, got 256"),
    (b"a\n" * 255 + b"void (ignore=7)\n", "expected at most 254 names, for the values below 255, got 255"),
])  # fmt: skip
def test_a_list_of_classes_that_cannot_be_meant_is_named(content, message, tmp_path):
    root = small_folder(tmp_path, [np.zeros((4, 6))])
    (root / "classes.txt").write_bytes(content)
    expect(rf"classes\.txt: {message}", lambda: open_labelled_set(root))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("void (ignore=0)\nroad\ncar\n", {0: IGNORE, 1: 0, 2: 1}),
        ("road\ncar\nvoid (ignore=2)\n", {0: 0, 1: 1, 2: IGNORE}),
        ("road\ncar\nsky\nvoid (ignore=1)\n", {0: 0, 1: IGNORE, 2: 1, 3: 2}),
    ],
)
def test_names_are_those_of_the_values_that_count(tmp_path, lines, expected):
    root = small_folder(tmp_path, [np.full((4, 6), value) for value in expected], lines)
    data = open_labelled_set(root)
    assert {value: int(data.read(k).label[0, 0]) for k, value in enumerate(expected)} == expected


def test_a_list_of_classes_may_have_comments(tmp_path):
    root = small_folder(tmp_path, [np.zeros((4, 6))], "# of the yard\nroad\n# and what moves\ncar\n")
    assert open_labelled_set(root).classes == ("road", "car")


def test_folders_called_as_ade20k_does_are_not_taken_for_it(tmp_path):
    """Its masks count from 1, and 0 is ignored: one's own would be shifted by a class."""
    root = small_folder(tmp_path, [np.zeros((4, 6))], None)
    for kind in ("images", "annotations"):
        (root / kind / "val").rename(root / kind / "validation")
    with pytest.raises(UserError, match=r"ADE20K, or masks of your own\? .*sceneCategories\.txt.*classes\.txt"):
        open_labelled_set(root, "validation")
    (root / "sceneCategories.txt").touch()
    assert len(open_labelled_set(root).classes) == 150


def test_a_folder_with_a_list_of_classes_is_one_whatever_its_splits_are_called(tmp_path):
    root = small_folder(tmp_path, [np.zeros((4, 6))], "road\ncar\n")
    for kind in ("images", "annotations"):
        (root / kind / "val").rename(root / kind / "validation")
    assert open_labelled_set(root, "validation").classes == ("road", "car")


def test_a_split_without_the_last_class_has_it_all_the_same(tmp_path):
    train = open_labelled_set(small_folder(tmp_path / "a", [np.arange(24).reshape(4, 6) % 3], None))
    val = open_labelled_set(small_folder(tmp_path / "b", [np.arange(24).reshape(4, 6) % 2], None))
    assert (len(train.classes), len(val.classes)) == (3, 2)
    for sets in (with_same_classes(train, val), with_same_classes(val, train)):
        assert [each.classes for each in sets] == [train.classes] * 2
    named = replace(val, classes=("road", "car"))
    with pytest.raises(UserError, match="expected the same classes, got"):
        with_same_classes(train, named)


def test_subset_is_spread_evenly(demo):
    data = LabelledSet("x", tuple((k, k) for k in range(10)), (), np.zeros(256, np.int16))
    assert [item[0] for item in data.subset(4).items] == [0, 3, 6, 9]
    assert data.subset(None) is data
    with pytest.raises(ValueError, match="at least 1 photo"):
        data.subset(0)


def test_resizing():
    image = np.zeros((4, 4, 3), np.uint8)
    image[::2] = 200
    assert (resize_image(image, 2, 2) == 100).all(), "shrinking averages: no aliasing"
    label = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert resize_label(label, 2, 2).tolist() == [[5, 7], [13, 15]]
    np.testing.assert_array_equal(resize_label(label, 8, 8), label.repeat(2, 0).repeat(2, 1))


def expect(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_errors_name_the_file_and_what_was_expected(tmp_path, demo):
    root = small_folder(tmp_path / "a", [np.zeros((3, 6)), np.full((4, 6), 9)])
    data = open_labelled_set(root)
    expect(r"0\.png: mask of wrong size: expected 6x4 as 0\.jpg, got 6x3", lambda: data.read(0))
    expect(r"1\.png: unknown class index 9: expected 0-1, 255 \(2 classes\)", lambda: data.read(1))
    expect(r"train: no such folder; .*images holds val", lambda: open_labelled_set(root, "train"))
    expect("no such folder; expected the root", lambda: open_labelled_set(tmp_path / "nowhere"))
    expect("layout not recognised.*leftImg8bit", lambda: open_labelled_set(tmp_path))
    expect("got 'kitti'", lambda: open_labelled_set(root, layout="kitti"))
    expect("got 'picie' with layout folder", lambda: open_labelled_set(root, protocol="picie"))

    (root / "annotations" / "val" / "1.png").unlink()
    expect(r"1 of 2 images have no mask; first: .*1\.jpg, expected .*1\.png", lambda: open_labelled_set(root))

    (tmp_path / "b" / "images" / "val").mkdir(parents=True)
    (tmp_path / "b" / "annotations").mkdir()
    expect("no photo in it; expected files ending in .jpg", lambda: open_labelled_set(tmp_path / "b"))

    colour = small_folder(tmp_path / "c", [np.zeros((4, 6, 3))])
    expect(r"expected a mask of class indices .*got mode 'RGB'", lambda: open_labelled_set(colour).read(0))
    (colour / "images" / "val" / "0.jpg").write_bytes(b"no photo")
    expect(r"0\.jpg: cannot be read as a photo", lambda: open_labelled_set(colour).read(0))
    broken = small_folder(tmp_path / "e", [np.zeros((4, 6))])
    mask = broken / "annotations" / "val" / "0.png"
    content = mask.read_bytes()
    at = (
        content.index(b"IDAT") - 1
    )  # the last byte of the chunk's length: Pillow finds the next one in the middle of it
    mask.write_bytes(content[:at] + b"\3" + content[at + 1 :])
    expect(r"0\.png: cannot be read as a mask", lambda: open_labelled_set(broken).read(0))
    empty = small_folder(tmp_path / "d", [np.full((4, 6), 255)], classes=None)
    expect("every pixel of every mask is 255", lambda: open_labelled_set(empty))
    expect("trainval.txt: no such list", lambda: open_labelled_set(demo("voc"), "trainval"))
