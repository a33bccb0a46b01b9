"""The style check is a test, so that one summary line tells the whole truth."""

import subprocess
import sys


def test_ruff_finds_nothing(repo):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=repo, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_scripts_parse(repo):
    for script in [*repo.glob("tools/*.sh"), repo / ".ci/run"]:
        done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, f"{script}: {done.stderr}"
