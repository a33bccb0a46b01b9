"""Settings that follow from the run: what the rules give, where the values go, what the log says of it."""

import copy
import math

import pytest
from mmengine.config import Config
from torch.utils.data import DataLoader

from slotcon_plugin.config import RunSize, load_config, settle
from slotcon_plugin.config.rules import num_prototypes, queue_size, teacher_momentum, warmup_epochs
from slotcon_plugin.engine import settings
from slotcon_plugin.errors import UserError
from slotcon_plugin.models.teacher import cosine_momentum

SMALL = "configs/pretrain/slotcon_small.py"


def run_of(steps: int = 450, photos: int = 2915, batch: int = 64, epochs: float = 10, **more) -> RunSize:
    return RunSize(photos=photos, batch=batch, recipe_batch=64, epochs=epochs, steps=steps, **more)


@pytest.mark.parametrize("steps", [100, 198, 450, 900])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_short_run_forgets_its_random_weights(steps, schedule):
    """The average is made step by step; of weights of 1 at the start and 0 afterwards, what is left."""
    m, left = teacher_momentum(0.999, run_of(steps), schedule), 1.0
    for step in range(1, steps + 1):
        left *= cosine_momentum(m, step, steps) if schedule == "cosine" else m
    assert 0.0004 < left < 0.0013
    with_paper = math.prod(cosine_momentum(0.99, step, steps) for step in range(1, steps + 1))
    assert with_paper > 0.01


@pytest.mark.parametrize(
    ("steps", "recipe", "schedule", "expected"),
    [
        (450, 0.99, "cosine", 0.9689),  # 1 - 14 / 450
        (450, 0.999, "constant", 0.9844),
        (184_800, 0.99, "cosine", 0.99),  # the paper's run: the paper's value
        (20, 0.99, "cosine", 0.5),
    ],
)
def test_teacher_momentum(steps, recipe, schedule, expected):
    assert teacher_momentum(recipe, run_of(steps), schedule) == expected


def test_the_recipes_momentum_is_for_its_batch():
    assert teacher_momentum(0.99, run_of(100_000, batch=16)) == pytest.approx(0.99**0.25)


def test_good_weights_are_kept_in_part():
    run = run_of(450, from_weights=True)
    m, left = teacher_momentum(0.999, run), 1.0
    for step in range(1, 451):
        left *= cosine_momentum(m, step, 450)
    assert left == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("from_weights", "recipe_batch", "expected"),
    [
        (False, 8, 0.9553),  # 1 - 14 / 313
        (True, None, 0.9853),  # 1 + 2 ln(.1) / 313
        (True, 8, 0.9801),  # .99 is for half of the batch
    ],
)
def test_steps_and_batch_are_those_of_all_processes_and_passes(from_weights, recipe_batch, expected, monkeypatch):
    """1,003 photos are 125 batches of 4 for each of two processes, in 5 epochs 313 steps of two passes each."""
    monkeypatch.setattr(settings.DATASETS, "build", lambda config: range(1003))
    cfg = Config(
        dict(
            model=dict(teacher_momentum="${teacher_momentum(0.99)}"),
            train_dataloader=dict(batch_size=4, drop_last=True, dataset=dict()),
            train_cfg=dict(max_epochs=5),
            optim_wrapper=dict(accumulative_counts=2),
        )
    )
    part = copy.deepcopy(cfg)
    part.train_dataloader.num_batch_per_epoch = 60  # mmengine's, for a trial
    assert settings._run_size(part, 2, None, False).steps == 150
    settled = settings.settle_for_run(cfg, 2, recipe_batch, from_weights)
    assert settled == {"${teacher_momentum(0.99)}": pytest.approx(expected, abs=1e-9)}
    assert cfg.model.teacher_momentum == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("drop_last", [True, False, None])
@pytest.mark.parametrize("photos", [64, 100, 129])
def test_steps_are_those_of_the_loader(drop_last, photos, monkeypatch):
    monkeypatch.setattr(settings.DATASETS, "build", lambda config: range(photos))
    options = dict(batch_size=64) | ({} if drop_last is None else dict(drop_last=drop_last))
    cfg = Config(dict(train_dataloader=dict(**options, dataset=dict()), train_cfg=dict(max_epochs=3), optim_wrapper={}))
    assert settings._run_size(cfg, 1, None, False).steps == 3 * len(DataLoader(range(photos), **options))


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [
        (20, 900, 1),
        (10, 450, 1),
        (8, 144, 0.8),
        (800, 10**5, 1),
        (2, 19, 0),
        (20, 20, 0),
        (20, 40, 1),
        (0.03, 600, 0.003),
        (0.049, 980, 0.0049),
    ],
)
def test_warmup_epochs(epochs, steps, expected):
    assert warmup_epochs(1, run_of(steps, epochs=epochs)) == expected


@pytest.mark.parametrize(
    ("photos", "recipe", "keys_per_photo", "expected"),
    [(2915, 16384, 32, 16384), (500, 16384, 32, 8000), (2915, 2048, 1, 1457), (10_000, 2048, 1, 2048), (1, 9, 2, 2)],
)
def test_queue_size(photos, recipe, keys_per_photo, expected):
    assert queue_size(recipe, run_of(photos=photos), keys_per_photo) == expected


@pytest.mark.parametrize(
    ("photos", "expected"), [(12, 4), (500, 16), (1200, 32), (2915, 64), (5000, 64), (20_000, 128), (118_287, 256)]
)
def test_num_prototypes(photos, expected):
    assert num_prototypes(2048, run_of(photos=photos)) == expected
    assert num_prototypes(48, run_of(photos=photos)) == min(expected, 48)


def test_values_take_the_place_of_rules(repo, monkeypatch):
    said = []
    monkeypatch.setattr("slotcon_plugin.config.rules.print_log", lambda text, logger: said.append(text))
    cfg = load_config(repo / SMALL)
    settled = settle(cfg, run_of(144, photos=1200, epochs=8))
    assert cfg.model.teacher_momentum == settled["${teacher_momentum(0.99)}"] == 0.9028
    assert cfg.model.grouping.num_prototypes == 32
    assert (cfg.param_scheduler[0].end, cfg.param_scheduler[1].begin) == (0.8, 0.8)
    first, *lines = said[0].splitlines()
    assert first.endswith("1,200 photos, 8 epochs, 144 steps of 64 images")
    assert [line.split(": ")[0] for line in lines] == [
        "  num_prototypes 32 (the recipe has 256)",
        "  teacher_momentum 0.9028 (the recipe has 0.99)",
        "  warmup_epochs 0.8 (the recipe has 1)",
    ]
    before = cfg.to_dict()
    assert settle(cfg, run_of(9)) == {}
    assert cfg.to_dict() == before


def test_a_value_of_ones_own_is_left_alone(repo):
    own = {"model.teacher_momentum": 0.9, "model.grouping.num_prototypes": 7, "warmup_epochs": 3}
    cfg = load_config(repo / SMALL, own)
    assert settle(cfg, run_of(450)) == {}
    assert (cfg.model.teacher_momentum, cfg.model.grouping.num_prototypes) == (0.9, 7)
    assert cfg.param_scheduler[0].end == 3


def test_without_a_run_the_recipes_values_hold_or_those_of_the_checkpoint(repo):
    cfg = load_config(repo / SMALL)
    settle(cfg, former={"${num_prototypes(256)}": 12})
    assert (cfg.model.teacher_momentum, cfg.model.grouping.num_prototypes) == (0.99, 12)


def test_going_on_with_more_photos_keeps_the_shapes_and_follows_the_steps(repo):
    cfg = load_config(repo / SMALL)
    former = settle(cfg, run_of(450))
    cfg = load_config(repo / SMALL)
    assert settle(cfg, run_of(1800, photos=12_000), former)["${teacher_momentum(0.99)}"] == 0.99
    assert cfg.model.grouping.num_prototypes == 64


def test_the_schedule_of_a_part_of_an_epoch_is_left_open_for_a_longer_run(repo):
    cfg = load_config(repo / SMALL, {"train_cfg.max_epochs": 6.4})
    settle(cfg, run_of(288, epochs=6.4))
    assert [(s.get("begin", 0), s.get("end")) for s in cfg.param_scheduler] == [(0, 0.64), (0.64, None)]


@pytest.mark.parametrize(
    "written",
    [
        *("${momentum(0.99)}", "${teacher_momentum()}", "${teacher_momentum(a b)}", "${warmup_epochs(5, 3)}"),
        *("${teacher_momentum(0.99, schedule='constant')}", "${teacher_momentum(0.99, 'linear')}"),
    ],
)
def test_rules_that_are_none(written):
    with pytest.raises(UserError, match="in the config"):
        settle(Config({"model": {"teacher_momentum": written}}), run_of(450))
