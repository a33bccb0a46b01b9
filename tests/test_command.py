"""Every outcome of a command has its status, and a bug keeps its traceback, in the run's log file too."""

import os
import shlex
import subprocess
import sys

import pytest

from slotcon_plugin.command import own_command

SCRIPT = """
import sys
from slotcon_plugin.command import run_command
from slotcon_plugin.errors import RunFailedError, UserError

def main():
    {body}

run_command(main)
"""


def run(body: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("body", "status", "stderr"),
    [
        ("return None", 0, ""),
        ("return 1", 1, ""),
        ("raise UserError('photos/ is empty')", 2, "error: photos/ is empty\n"),
        ("raise RunFailedError('diverged')", 1, "error: diverged\n"),
        ("raise KeyboardInterrupt", 130, "error: interrupted\n"),
        ("sys.exit(2)", 2, ""),
    ],
)
def test_what_was_foreseen_is_one_line(body, status, stderr):
    done = run(body)
    assert (done.returncode, done.stderr) == (status, stderr)


def test_what_a_loaders_worker_could_not_read_is_one_line():
    """torch raises it again with the worker's traceback for its message."""
    body = """
    from torch.utils.data import DataLoader
    class Photos(list):
        def __getitem__(self, index):
            raise UserError("a.jpg: cannot be read.\\nReplace it")
    for _ in DataLoader(Photos([1]), num_workers=1): pass
"""
    done = run(body.strip())
    assert (done.returncode, done.stderr) == (2, "error: a.jpg: cannot be read.\nReplace it\n")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
def test_names_that_a_terminal_cannot_show_end_nothing(encoding):
    body = r"print('run of \udcff \u65e5'); raise UserError('no photos in \udcff')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(body=body)], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (2, rb"error: no photos in \udcff" + b"\n")
    assert done.stdout.startswith(rb"run of \udcff ")


def test_commands_that_are_shown_can_be_pasted(monkeypatch, tmp_path):
    (tmp_path / "my env").mkdir()
    (tmp_path / "my env/slotcon").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env/python"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert shlex.split(own_command()) == [str(tmp_path / "my env/slotcon")]


def test_a_bug_keeps_its_traceback():
    done = run("int('three')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert "in main" in done.stderr
    assert done.stderr.endswith("ValueError: invalid literal for int() with base 10: 'three'\n")


def test_log_lines_that_a_full_disk_does_not_take_do_not_hide_the_message():
    body = "from mmengine.logging import MMLogger; log = MMLogger.get_instance('run', log_file='/dev/full'); "
    done = run(body + "log.info('step 1'); raise RunFailedError('the disk is full')")
    assert (done.returncode, done.stderr) == (1, "error: the disk is full\n")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [("int('three')", "in main"), ("raise UserError('photos/ is empty')", "error: photos/ is empty")],
)
def test_the_log_file_of_the_run_gets_it_too(tmp_path, raised, expected):
    log = tmp_path / "run.log"
    body = f"from mmengine.logging import MMLogger; MMLogger.get_instance('run', log_file={str(log)!r}); {raised}"
    run(body)
    assert expected in log.read_text()
