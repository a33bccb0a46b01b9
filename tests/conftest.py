"""Shared by all tests: one thread a process and no GPU, so that figures are those of any machine."""

import os
import re
import signal
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from slotcon_plugin.engine.stop import SIGNALS
from tests import processes

torch.set_num_threads(1)
os.fsync = lambda _file: None  # no test's file has to outlive a power cut, and one suite waits minutes for the disk


def pytest_configure(config):
    if config.option.markexpr != "gpu":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_collection_modifyitems(items):
    """Files with most slow tests first, so that no worker is left alone with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout: configs/ and tools/ lie beside tests/."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def run_ranks():
    """:func:`tests.processes.run_ranks`; files that are such a program themselves cannot import it."""
    return processes.run_ranks


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _signals_are_left_alone():
    """A handler that is left behind is inherited by the next test's worker processes, which then cannot be ended."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


@pytest.fixture
def folder(tmp_path):
    """Twelve photos of 96 x 72 in two folders, JPEG and PNG."""
    rng = np.random.default_rng(0)
    for number in range(12):
        small = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        path = (
            tmp_path / "photos" / ("cats" if number % 2 else "dogs") / f"{number:02}.{'png' if number % 3 else 'jpg'}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((96, 72), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"


@pytest.fixture
def same_as_recorded():
    """Each line of a recording in a document is one that a run shows, in the same order; figures and paths apart."""

    def compare(shown: str, document: Path, name: str) -> None:
        recorded = document.read_text().split(f"<!-- recording: {name} -->\n```text\n")[1].split("```")[0]
        kept, found = _masked(recorded), _masked(shown)
        assert kept and [line for line in found if line in kept] == kept, "\n".join(found)

    return compare


_LABELS = (
    "pretraining|photos|length|output|device|log|done|checkpoint|loss|health|next|backbone|groupings|gained|. of 4"
)
_COMMANDS = "pretrain|export|evaluate|finetune|look|quickstart"


def _masked(shown: str) -> list[str]:
    """Lines of a run without what differs from run to run: figures, paths, the device, the health's word."""
    lines = []
    for line in filter(str.strip, shown.splitlines()):
        if not re.match(rf"({_LABELS}) |  ", line):
            continue  # settings that follow from the run
        if re.match(r" *\d+%", line):
            continue  # a quick run ends before its first line of progress
        line = re.sub(r"^(device|health) .*", r"\1", line)
        line = re.sub(rf"(\S*python\S* -m slotcon_plugin|\S*slotcon)(?= ({_COMMANDS}) )", "slotcon", line)
        line = re.sub(r": nothing gained.*| \(the recipe has [^)]*\)", "", line)
        line = re.sub(r"[^\s,:;]*(my_photos|work_dirs|demo_scenes)[^\s,:;]*", r"\1", line)
        line = re.sub(r"[+-]?[\d][\d,.e+-]*( min\b| s\b)?", "N", line).lstrip()
        if line not in lines and not line.startswith("Settings"):
            lines.append(line)
    return lines
