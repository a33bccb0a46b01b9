"""Options that the prose and the tables of the documents name are understood, and some config has them."""

import argparse
import re
from pathlib import Path

import pytest

from slotcon_plugin.arguments import add_cfg_options
from slotcon_plugin.config import load_config
from slotcon_plugin.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ("slotcon_small", "vader_small", "slotcon_decoder_small", "slotcon_continue", "densecl_small")
OF_TRANSFER = {
    "train_cfg.max_iters=1000": "fpn_r18_own",
    "train_dataloader.dataset.filter_cfg.filter_empty_gt=False": "rcnn_r18_fpn_own",
}


def options() -> list[tuple[str, str]]:
    """(document, ``KEY=VALUE``) of all that stands between backticks."""
    section = r"(?:model|default_hooks|train_cfg|optim_wrapper|train_dataloader|log_level|warmup_epochs)"
    option = re.compile(rf"`[\"']?(?:--cfg-options )?(\+?{section}[\w.]*=[^`]+?)[\"']?`")
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = {(path.name, text) for path in documents for text in option.findall(path.read_text())}
    return sorted(found)


def test_options_are_found():
    assert len(options()) > 20


@pytest.mark.parametrize(("file", "text"), options())
def test_a_documented_option_is_one_of_some_config(file, text):
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    given = parser.parse_args(["--cfg-options", text]).cfg_options
    for name in [OF_TRANSFER[text]] if text in OF_TRANSFER else CONFIGS:
        try:
            load_config(name, given)
            return
        except UserError as error:
            reason = error
    pytest.fail(f"{text} in {file}: {reason}")
