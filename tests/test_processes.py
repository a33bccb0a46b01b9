"""A program from the fork server runs as one from the shell does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.processes import Python, run_python

SCRIPT = """
import os, sys
import beside
print(sys.argv, __name__, os.getcwd(), sys.path[0], os.environ["SAID"], beside.__file__)
print(sys.stdin.read(), file=sys.stderr)
sys.exit(len(sys.argv))
"""


@pytest.mark.parametrize("words", [["script.py", "a b", "c"], ["-m", "script", "a"], ["-c", SCRIPT, "--x"]])
def test_it_sees_what_a_program_from_the_shell_sees(words, tmp_path, monkeypatch):
    monkeypatch.setenv("SAID", "yes")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "beside.py").touch()
    want = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, input="")
    got = run_python(*words, cwd=tmp_path)
    assert (got.returncode, got.stdout, got.stderr) == (want.returncode, want.stdout, want.stderr)
    assert got.returncode == len(words) - (words[0] != "script.py")


def test_nothing_of_ours_is_imported_before():
    done = run_python("-c", "import sys; print([name for name in sys.modules if name.startswith('slotcon')])")
    assert done.stdout == "[]\n"


def test_errors_signals_and_what_is_left_to_the_end_of_the_interpreter(tmp_path):
    done = run_python("-c", "import atexit; atexit.register(print, 'end'); undefined")
    assert (done.returncode, done.stdout) == (1, "end\n")
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("NameError: name 'undefined' is not defined\n")
    two = [Python("-c", "import time; time.sleep(60)") for _ in range(2)]  # at the same time
    os.kill(two[1].pid, signal.SIGKILL)
    os.kill(two[0].pid, signal.SIGTERM)
    assert [process.wait().returncode for process in two] == [-signal.SIGTERM, -signal.SIGKILL]


def test_what_does_not_end_is_ended():
    hangs = Python("-c", "import time; time.sleep(600)")
    with pytest.raises(TimeoutError, match=r"has not ended in 0\.1 s"):
        hangs.wait(0.1)
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{hangs.pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
