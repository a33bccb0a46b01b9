from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from slotcon_plugin.models import Method
from slotcon_plugin.registry import HOOKS
from slotcon_plugin.visualization import hook as module
from slotcon_plugin.visualization.colors import prototype_colors

RED, BLUE = (200, 30, 30), (30, 30, 200)


@pytest.fixture
def runner(model, halves, tmp_path):
    paths = [str(halves(tmp_path / f"{i}.png", RED, BLUE)) for i in range(5)]
    source = type("Source", (), {"__len__": lambda s: 5, "path": lambda s, i: paths[i]})()
    drawn = []
    visualizer = SimpleNamespace(add_image=lambda name, image, step: drawn.append((name, image, step)))
    dataset = SimpleNamespace(source=source)
    return SimpleNamespace(
        model=model.train(),
        iter=0,
        epoch=0,
        max_iters=50,
        max_epochs=5,
        visualizer=visualizer,
        drawn=drawn,
        paths=paths,
        train_dataloader=SimpleNamespace(dataset=dataset),
    )


def test_the_same_photos_are_drawn_before_and_every_so_many_epochs_and_at_the_end(runner):
    hook = HOOKS.build(dict(type="GroupingPicturesHook", num_photos=3, interval=2, short_side=96))
    hook.before_train(runner)
    assert hook.photos == [runner.paths[0], runner.paths[2], runner.paths[4]]
    for runner.epoch, runner.iter in enumerate((10, 20, 30, 40, 50)):
        hook.after_train_epoch(runner)
    assert [(name, step) for name, _, step in runner.drawn] == [("groupings", step) for step in (0, 20, 40, 50)]
    first, last = runner.drawn[0][1], runner.drawn[-1][1]
    assert first.dtype == np.uint8
    assert (first == last).all()
    want = 0.55 * prototype_colors(4)[0] + 0.45 * float(np.array(RED) @ [0.299, 0.587, 0.114])
    assert (np.abs(first - want).max(axis=-1) <= 1).sum() > 3 * 100 * 200  # half of each photo's overlay
    assert runner.model.training  # as it was


def test_unreadable_photos_do_not_end_a_run(runner, caplog):
    paths, warnings = runner.paths, []
    runner.logger = SimpleNamespace(warning=warnings.append)
    for name in (paths[0], paths[4]):
        Path(name).write_bytes(b"no photo")
    HOOKS.build(dict(type="GroupingPicturesHook", num_photos=3, short_side=96)).before_train(runner)
    assert len(runner.drawn) == 1
    assert runner.drawn[0][1].shape[0] < 400  # one row of one photo
    Path(paths[2]).unlink()
    HOOKS.build(dict(type="GroupingPicturesHook", num_photos=3, short_side=96)).before_train(runner)
    assert len(runner.drawn) == 1
    assert "draws nothing" in warnings[0]
    assert runner.model.training


def test_pictures_without_memory_do_not_end_a_run(runner, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    warnings = []
    runner.logger = SimpleNamespace(warning=warnings.append)
    monkeypatch.setattr(module, "contact_sheet", fail)
    HOOKS.build(dict(type="GroupingPicturesHook", num_photos=3, short_side=96)).before_train(runner)
    assert warnings == ["GroupingPicturesHook draws nothing: MemoryError"]
    assert runner.model.training


def test_a_resumed_run_does_not_draw_at_its_start(runner):
    runner.iter = 10
    HOOKS.build(dict(type="GroupingPicturesHook", num_photos=1, short_side=96)).before_train(runner)
    assert runner.drawn == []


def test_options_are_checked(runner):
    with pytest.raises(ValueError, match="interval must be at least 1 epoch, got 0"):
        HOOKS.build(dict(type="GroupingPicturesHook", interval=0))
    with pytest.raises(ValueError, match="num_photos must be 1 or more, got 0"):
        HOOKS.build(dict(type="GroupingPicturesHook", num_photos=0))
    runner.model.method = Method("mine", "Mine")
    with pytest.raises(ValueError, match="GroupingPicturesHook needs a method with prototypes"):
        HOOKS.build(dict(type="GroupingPicturesHook")).before_train(runner)


def test_of_several_heads_each_is_drawn_and_the_shown_one_stays(runner):
    runner.model.heads, runner.model.shown_head = ("encoder", "p2"), "p2"
    asked, group = [], runner.model.group
    runner.model.group = lambda *args: asked.append(runner.model.shown_head) or group(*args)
    hook = HOOKS.build(dict(type="GroupingPicturesHook", num_photos=2, short_side=96))
    hook.before_train(runner)
    assert [name for name, _, _ in runner.drawn] == ["groupings_encoder", "groupings_p2"]
    assert asked == ["encoder"] * 2 + ["p2"] * 2
    assert runner.model.shown_head == "p2"
