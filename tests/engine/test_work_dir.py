"""A work dir belongs to one running process."""

import os
import signal
import subprocess
import sys

import pytest

from slotcon_plugin.engine import claim_work_dir

HOLD = """
import multiprocessing, sys, time
from slotcon_plugin.engine import claim_work_dir
claim_work_dir(sys.argv[1])
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_the_second_run_is_told_of_the_first_and_a_killed_one_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    worker = int(first.stdout.readline())  # like a data loader's: lives on when its parent is killed
    try:
        with pytest.raises(ValueError, match=rf"in use by process {first.pid} on .*--work-dir"):
            claim_work_dir(tmp_path)
        monkeypatch.setenv("RANK", "1")
        claim_work_dir(tmp_path)  # the others of a launcher's processes share it
        monkeypatch.delenv("RANK")
        first.kill()
        first.wait()
        claim_work_dir(tmp_path)
        claim_work_dir(tmp_path)  # its own already
        assert f"process {os.getpid()} " in (tmp_path / ".in_use").read_text()
    finally:
        first.kill()
        os.kill(worker, signal.SIGKILL)
