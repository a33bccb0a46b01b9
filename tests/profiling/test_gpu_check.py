"""tools/gpu_check.sh: what it runs, which packages it takes, and the interpreter that it finds."""

import os
import shutil
import subprocess
import sys

import pytest

# Answers small questions, and of all else notes what it is asked for; the tests look for what was installed.
PYTHON = """#!/usr/bin/env bash
if [ "$1" = -c ]; then exec {python} "$@"; fi
echo "$*" >> {log}
case "$*" in
    "-m pip install"*) touch "${{@: -2:1}}/package.py" ;;
    "-m pytest"*) ls "${{PYTHONPATH##*:}}/package.py" &>> {log}; exit ${{TESTS_END:-0}} ;;
esac
"""


@pytest.fixture
def check(repo, tmp_path):
    """Run the script with a Python that notes its arguments -> how it ended, and the notes."""
    log, fake = tmp_path / "log", tmp_path / "python"
    fake.write_text(PYTHON.format(python=sys.executable, log=log))
    fake.chmod(0o755)

    def run(*words, **variables):
        log.unlink(missing_ok=True)
        env = os.environ | {"PYTHON": str(fake), "TMPDIR": str(tmp_path), **variables}
        command = ["bash", "tools/gpu_check.sh", *map(str, words)]
        done = subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True)
        return done, log.read_text().splitlines() if log.exists() else []

    return run


def test_it_runs_in_parts(check, tmp_path):
    tests, steps = "-m pytest -q -m gpu", f"tools/benchmark_gpu.py --device cpu --out {tmp_path}/gpu.json"
    for only, want in (([], [tests, steps]), (["--only", "tests"], [tests]), (["--only", "steps"], [steps])):
        done, notes = check("--device", "cpu", "--out", tmp_path, *only)
        assert done.returncode == 0, done.stderr
        commands = [note for note in notes if note.startswith(("-m", "tools"))]
        assert [note[: len(start)] for note, start in zip(commands, want, strict=True)] == want
        assert "--resume" not in commands[-1]
    _, notes = check("--device", "cpu", "--out", tmp_path, "--only", "steps", "--resume")
    assert notes[-1] == f"{steps} --resume"


def test_steps_are_timed_where_a_test_has_failed(check, tmp_path):
    done, notes = check("--device", "cpu", "--out", tmp_path, TESTS_END="1")
    assert done.returncode == 1
    assert notes[-1].startswith("tools/benchmark_gpu.py")


def test_packages_lie_in_a_folder_that_goes_away(check, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("torch-1-py3-none-any", "no_such_package-1-cp310-cp310-linux", "no_such_package-1-cp312-cp312-linux"):
        (wheels / f"{name}.whl").touch()
    before = set(tmp_path.iterdir())
    done, notes = check("--device", "cpu", "--wheels", wheels, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert notes[0].endswith(" no_such_package"), "what is there stays in use"
    assert [os.path.basename(note) for note in notes].count("package.py") == 1, "the tests see it"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "log"}


def test_wheels_of_another_python_are_named(check, tmp_path):
    (tmp_path / "no_such_package-1-cp39-cp39-linux.whl").touch()
    done, _ = check("--device", "cpu", "--wheels", tmp_path, PYTHON=sys.executable)
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert done.returncode == 2
    assert f"are for Python 3.9, this is {own}; fill the folder with --fetch DIR --python {own}" in done.stderr


@pytest.mark.parametrize("version", [None, "3.13"])
def test_packages_are_fetched_for_the_python_that_will_run(check, tmp_path, version):
    done, (note,) = check("--fetch", tmp_path, *(["--python", version] if version else []))
    assert done.returncode == 0, done.stderr
    want = version or f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"--only-binary=:all: --python-version {want} " in note
    assert f"for Python {want}" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "all"], "--only is tests or steps, not all"),
        (["--python", "3.12"], "--python goes with --fetch"),
        (["--fetch", "DIR", "--python", "12"], "--python is a version such as 3.12, not 12"),
        (["--only"], "--only needs a value"),
    ],
)
def test_wrong_arguments_are_named(check, words, message):
    done, notes = check(*words)
    assert (done.returncode, notes) == (2, [])
    assert message in done.stderr


def test_python3_is_enough(repo, tmp_path):
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    (tmp_path / "python3").write_text('#!/bin/sh\necho "python3 $*"\n')
    (tmp_path / "python3").chmod(0o755)
    env = {"PATH": str(tmp_path), "SLOTCON_VENV": str(tmp_path / "none")}
    command = [tmp_path / "bash", "tools/python.sh", "-m", "pip"]
    assert subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True).stdout == "python3 -m pip\n"
    (tmp_path / "python").symlink_to(shutil.which("true"))
    assert subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True).stdout == "", "python comes first"
