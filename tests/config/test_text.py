"""Copies of configs that people change: nothing in them that nobody reads."""

import pytest

from slotcon_plugin.config import list_configs, read_config, text_to_change
from slotcon_plugin.config.check import read_at_the_top

READ_BY_MMSEG = {"test_pipeline", "tta_model", "tta_pipeline"}


@pytest.fixture
def copied(tmp_path):
    """A config's name, changes of its copy's text -> the copy, read."""

    def copy(name, *changes):
        text = text_to_change(read_config(name))
        for before, after in changes:
            assert before in text
            text = text.replace(before, after, 1)
        (tmp_path / f"{name}.py").write_text(text)
        return read_config(tmp_path / f"{name}.py")

    return copy


def without_scopes(value):
    if isinstance(value, dict):
        return {key: without_scopes(child) for key, child in value.items() if key != "_scope_"}
    return [without_scopes(child) for child in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("kind", ["pretrain", "transfer", "benchmark"])
def test_a_copy_is_the_config_without_what_nobody_reads(kind, copied):
    for name in list_configs(kind):
        original, copy = read_config(name).to_dict(), copied(name)
        assert {key: without_scopes(original[key]) for key in copy} == without_scopes(copy.to_dict()), name
        if kind == "benchmark":
            assert copy.keys() == original.keys()
            continue
        left_out = original.keys() & read_at_the_top() - copy.keys()
        assert left_out == {"data_preprocessor"} & original.keys(), name  # the model has one, which goes before
        text = copy.text
        used = {key for key in copy if f"${{{key}}}" in text}
        if copy.default_scope == "mmseg":
            used |= READ_BY_MMSEG
        for key in copy.keys() - read_at_the_top() - used:
            assert key.endswith("_pipeline") and f"pipeline={key}," in text, (name, key)


def test_what_is_changed_in_a_copy_changes(copied):
    resize = "dict(keep_ratio=True, scale=(\n        640,\n        480,\n    ), type='Resize'),"
    copy = copied("fpn_r18_own", ("max_iters=2000", "max_iters=7"), (resize, "dict(type='Mine'),"))
    assert copy.train_cfg.max_iters == 7
    for loader in (copy.val_dataloader, copy.test_dataloader):
        assert loader.dataset.pipeline[1].type == "Mine"
    assert copy.train_dataloader.dataset.pipeline[1].type == "LoadAnnotations"
