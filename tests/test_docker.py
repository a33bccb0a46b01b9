"""The Dockerfile sets the environment up from a few files; the packages must be installable from those alone."""

import shlex
import shutil
import subprocess
import sys


def instructions(dockerfile):
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    return [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]


def test_what_is_copied_first_is_all_that_the_environment_needs(repo, tmp_path):
    given = instructions(repo / "Dockerfile")
    set_up = next(i for i, (name, words) in enumerate(given) if name == "RUN" and "tools/setup_env.sh" in words)
    copies = [shlex.split(words) for name, words in given[:set_up] if name == "COPY"]
    assert [line for line in given[set_up:] if line[0] == "COPY"] == [["COPY", ". ."]]
    for *sources, target in copies:
        for source in sources:
            folder = tmp_path / target
            if (repo / source).is_dir():
                shutil.copytree(repo / source, folder)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(repo / source, folder)
    described = subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "error" not in described.stderr.lower()
    assert "slotcon_plugin" in (tmp_path / "slotcon_plugin.egg-info/top_level.txt").read_text()
    assert (tmp_path / "requirements/tested.txt").exists()  # setup_env.sh's constraints
    imported = subprocess.run(
        [sys.executable, "-c", "import slotcon_plugin; print(slotcon_plugin.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert imported.startswith(str(tmp_path))
