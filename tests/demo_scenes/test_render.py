import numpy as np
import pytest

from slotcon_plugin.demo_scenes import CLASSES, GROUNDS, OBJECTS, render_scene
from slotcon_plugin.demo_scenes.objects import CATEGORIES, Patch, draw, hsv
from slotcon_plugin.demo_scenes.render import paste
from slotcon_plugin.demo_scenes.textures import _FIELDS, field

SIZE = (96, 64)


def test_a_scene_depends_on_seed_and_index_alone():
    first = render_scene(3, 7, SIZE)
    render_scene(3, 8, SIZE)  # what was drawn in between must not matter
    second = render_scene(3, 7, SIZE)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.instances, second.instances)
    assert first.categories == second.categories
    for other in (render_scene(3, 8, SIZE), render_scene(4, 7, SIZE)):
        assert (first.image != other.image).mean() > 0.5


@pytest.mark.parametrize("index", range(12))
def test_semantic_and_instances_agree(index):
    scene = render_scene(0, index, SIZE)
    assert scene.image.shape == (64, 96, 3)
    assert scene.image.dtype == np.uint8
    assert scene.semantic.shape == scene.instances.shape == (64, 96)
    assert np.unique(scene.instances[scene.instances > 0]).tolist() == list(range(1, len(scene.categories) + 1))
    things = [CLASSES.index(name) for name in OBJECTS]
    stuff = [CLASSES.index(name) for name in ("sky", *GROUNDS)]
    assert np.isin(scene.semantic[scene.instances == 0], stuff).all()
    for number, category in enumerate(scene.categories, start=1):
        assert category in things
        assert (scene.semantic[scene.instances == number] == category).all()


def test_every_class_occurs_and_none_swallows_the_rest():
    pixels = np.zeros(len(CLASSES))
    for index in range(60):
        pixels += np.bincount(render_scene(0, index, SIZE).semantic.ravel(), minlength=len(CLASSES))
    share = pixels / pixels.sum()
    assert share.min() > 0.005, dict(zip(CLASSES, share.round(3)))
    assert share.max() < 0.4, dict(zip(CLASSES, share.round(3)))


def test_mean_colour_does_not_name_the_class():
    # nearest class mean in RGB, fitted and scored on the same pixels: what colour alone can do at best with one blob
    scenes = [render_scene(0, index, SIZE) for index in range(60)]
    colour = np.concatenate([scene.image.reshape(-1, 3) for scene in scenes]).astype(float)
    label = np.concatenate([scene.semantic.ravel() for scene in scenes])
    means = np.stack([colour[label == k].mean(0) for k in range(len(CLASSES))])
    nearest = np.stack([((colour - mean) ** 2).sum(1) for mean in means]).argmin(0)
    per_class = [(nearest[label == k] == k).mean() for k in range(len(CLASSES))]
    assert np.mean(per_class) < 0.4, per_class


def test_what_is_pasted_later_occludes():
    image, instances = np.zeros((8, 10, 3), np.float32), np.zeros((8, 10), np.uint16)
    red = Patch(np.tile(np.float32([1, 0, 0]), (4, 4, 1)), np.ones((4, 4), np.float32), (0, 0))
    half = np.full((4, 4), 0.5, np.float32)
    half[0] = 0.25
    green = Patch(np.tile(np.float32([0, 1, 0]), (4, 4, 1)), half, (0, 0))
    paste(image, instances, red, 1, 1, 1)
    paste(image, instances, green, 3, 3, 2)
    assert instances[1:3, 1:5].tolist() == [[1] * 4] * 2
    assert instances[3, 3:5].tolist() == [1, 1], "a quarter of coverage is not enough to own a pixel"
    assert instances[4, 3:7].tolist() == [2] * 4
    np.testing.assert_allclose(image[4, 3], [0.5, 0.5, 0])
    np.testing.assert_allclose(image[3, 3], [0.75, 0.25, 0])
    paste(image, instances, red, 8, -2, 3)  # partly outside
    assert np.argwhere(instances == 3).tolist() == [[0, 8], [0, 9], [1, 8], [1, 9]]
    paste(image, instances, red, 50, 50, 4)  # wholly outside
    assert not (instances == 4).any()


def test_the_picture_shows_an_object_where_the_mask_says():
    scene = render_scene(0, 3, (160, 120))
    image = scene.image.astype(float)
    jump = np.abs(np.diff(image, axis=1)).sum(-1)
    border = scene.instances[:, 1:] != scene.instances[:, :-1]
    assert jump[border].mean() > 3 * jump[~border].mean()


@pytest.mark.parametrize("name", CATEGORIES)
def test_an_object_stands_on_its_anchor_and_is_as_high_as_asked(name):
    light = np.array([0.0, -0.6, 0.8])
    for seed in range(5):
        patch = draw(name, np.random.default_rng(seed), 60, light)
        solid = patch.alpha > 0.5
        assert 45 <= np.flatnonzero(solid.any(1)).size <= 80
        assert patch.anchor[1] <= patch.alpha.shape[0] + 2
        assert solid.any(1)[: patch.anchor[1]].sum() >= 40, "most of it is above the ground"
        assert patch.colour[solid].min() >= 0
        # the outline is not cut by the border of its canvas: the outermost lines are thin
        assert solid[0].mean() < 0.8


@pytest.mark.parametrize("name", _FIELDS)
def test_fields_wrap_and_fill_their_range(name):
    texture = field(name, 0)
    assert texture.shape == (256, 256)
    assert texture.dtype == np.float32
    assert texture.min() >= 0
    assert texture.max() <= 1
    assert texture.std() > 0.05
    for axis in (0, 1) if name not in ("tiles", "planks") else ():  # these two have a joint at the seam
        inside = np.abs(np.diff(texture, axis=axis)).mean()
        seam = np.abs(np.take(texture, 0, axis) - np.take(texture, -1, axis)).mean()
        assert seam < 3 * inside


@pytest.mark.parametrize(
    ("args", "rgb"),
    [((0, 1, 1), (1, 0, 0)), ((1 / 3, 1, 1), (0, 1, 0)), ((0.5, 1, 0.5), (0, 0.5, 0.5)), ((0.7, 0, 0.2), (0.2,) * 3)],
)
def test_hsv(args, rgb):
    np.testing.assert_allclose(hsv(*args), rgb, atol=1e-6)


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"at least 32 pixels, got \(320, 16\)"):
        render_scene(0, 0, (320, 16))
    with pytest.raises(ValueError, match="seed=-1"):
        render_scene(-1, 0)
