"""Commands in the documents, help texts and configs: all parse, all files they name are there, the quick ones run.

Python blocks of the documents run too. One that cannot run by itself says so to its readers: its first line is a
comment that begins with ``# fragment``. It must still be Python, and must really not run.
"""

import argparse
import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from slotcon_plugin.cli import COMMANDS, build_parser, main
from slotcon_plugin.config import find_config, load_config
from slotcon_plugin.demo_scenes import make_demo_scenes
from tests.processes import run_python

ROOT = Path(__file__).resolve().parent.parent
WORDS = "|".join(COMMANDS)
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:python tools/\w+\.py|(?:bash )?tools/\w+\.sh|slotcon (?:{WORDS}))\b.*")
# Launchers and the tool whose arguments they pass on, with the number of arguments that are their own.
LAUNCHERS = {"tools/dist_train.sh": (1, 2), "tools/dist_test.sh": (2, 3), "tools/slurm_train.sh": (0, 2)}
# What runs in seconds; the others train, or need more than a CPU and pictures made on the spot.
QUICK = {
    *("plot_run", "visualize_views", "benchmark_table"),
    *("convert_to_d2", "convert_to_mmdet", "convert_to_mmseg", "convert_to_torchvision"),
}
DRY = ("--dry-run", "--print-commands", "--slurm")
ELSEWHERE = (
    "/data/",
    "--network",
    "--layout",
    ".pth.tar",
    "decoder",
    "--results",
    "runs/",
    "_dirs/run/",
    "iter_450",
    "lite0.safetensors",
)


def lines(path: Path) -> list[str]:
    """Lines of code blocks: fenced or indented by four in Markdown, indented in docstrings."""
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(path.read_text())) or "").replace("\\\n", " ").splitlines()
    found, fenced = [], False
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            found.append(line)
    return found


def documented() -> list[tuple[str, str]]:
    """(file, command) of every command that is documented somewhere, each once a file."""
    sources = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "tools").glob("*.py")]
    sources += [*(ROOT / "configs").rglob("*.py"), *(ROOT / "slotcon_plugin/cli").glob("*.py")]
    found = {
        (str(path.relative_to(ROOT)), line.strip())
        for path in sources
        for line in lines(path)
        if COMMAND.fullmatch(line.strip())
    }
    return sorted(found)


def split(command: str) -> list[str]:
    """Words from the script on, without the comment behind it and without shell variables that stand alone."""
    words = [word for word in shlex.split(command, comments=True) if not word.startswith("$")]
    words = words[: words.index("&&")] if "&&" in words else words
    return words[next(i for i, word in enumerate(words) if word.startswith(("tools/", "slotcon"))) :]


class ParsedError(BaseException):  # no Exception: a tool would report it as a bug
    """Carries what a tool understood; raised in place of running it."""


def understood(words: list[str], monkeypatch) -> argparse.Namespace:
    original = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise ParsedError(original(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)  # for --device cuda
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(ParsedError) as parsed:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    return parsed.value.args[0]


def test_commands_are_found():
    files = {file for file, _ in documented()}
    assert {"README.md", "docs/convert.md", "tools/train_d2.py", "configs/pretrain/slotcon_small.py"} <= files
    assert len(documented()) > 90


@pytest.mark.parametrize(("file", "command"), documented(), ids=lambda text: text[:60])
def test_a_documented_command_is_understood(file, command, monkeypatch):
    words = split(command)
    if words[0] == "slotcon":
        words = words[1 : words.index(">")] if ">" in words else words[1:]
        given = build_parser(words[:1]).parse_args(words)
        assert not getattr(given, "config", None) or find_config(given.config)
        return
    assert (ROOT / words[0]).is_file(), words[0]
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file(), f"{file} names {word}"
    if words[0] in LAUNCHERS:
        where, own = LAUNCHERS[words[0]]
        words = ["tools/test.py" if "test" in words[0] else "tools/train.py", *_without(words[1:], where, own)]
    if words[0].endswith(".sh"):
        return
    given = understood(words, monkeypatch)
    config = getattr(given, "config", None)
    options = getattr(given, "cfg_options", None)
    if options and str(config).startswith("configs/"):
        if "/mmdet/" in config or "/mmseg/" in config:
            pytest.importorskip("mmdet")
            pytest.importorskip("mmseg")
        load_config(ROOT / config, options)  # refuses keys that nothing reads


def _without(words: list[str], where: int, own: int) -> list[str]:
    """``CONFIG 8 --resume`` -> ``CONFIG --resume``; ``PARTITION JOB CONFIG`` -> ``CONFIG``."""
    return words[own:] if where == 0 else [*words[:where], *words[own:]]


def python_of(document: Path, fragments: bool) -> str:
    """The document with nothing left but its Python blocks (or the fragments among them), each on its own lines."""
    lines, inside, fragment = [], False, False
    text = document.read_text(encoding="utf-8").splitlines()
    for line, after in zip(text, [*text[1:], ""]):
        if line.startswith("```"):
            inside, fragment = line == "```python" and not inside, after.startswith("# fragment")
            lines.append("")
        else:
            lines.append(line if inside and fragment == fragments else "")
    return "\n".join(lines)


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# dicts with a `type` are configs: what they say must be what the classes take
CHECK_CONFIGS = """
from mmengine.config import Config
from slotcon_plugin.config.check import check_arguments
configs = {k: v for k, v in globals().items() if isinstance(v, (dict, list)) and not k.startswith("_")}
check_arguments(Config(dict(default_scope="slotcon_plugin", **configs)))
"""


def run_block(source: str, name: str, folder: Path) -> subprocess.CompletedProcess:
    """In a process of its own, since blocks may register classes; line numbers of a traceback are the document's."""
    (folder / name).write_text(source, encoding="utf-8")
    return run_python(name, cwd=folder)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if python_of(d, False).strip()], ids=lambda d: d.stem)
def test_python_of_the_documents_runs(document, tmp_path):
    """The blocks of a document in their order, as someone types them who reads it."""
    done = run_block(python_of(document, fragments=False) + CHECK_CONFIGS, f"{document.stem}.md.py", tmp_path)
    assert done.returncode == 0, done.stderr


def test_fragments_are_python_and_do_not_run(tmp_path):
    for document in DOCUMENTS:
        if source := python_of(document, fragments=True).strip():
            compile(source, str(document), "exec")
            assert run_block(source, "fragment.py", tmp_path).returncode, f"{document.name} runs, take the mark off"


def test_a_wrong_block_is_found(tmp_path):
    document = tmp_path / "page.md"
    block = "a = dict(type='ListFile', pth='x')"
    document.write_text(f"text\n```python\n{block}\n```\n```python\n# fragment\nlater()\n```\n")
    assert python_of(document, fragments=False).splitlines() == ["", "", block, "", "", "", ""]
    assert python_of(document, fragments=True).strip() == "# fragment\nlater()"
    done = run_block(python_of(document, fragments=False) + CHECK_CONFIGS, "page.py", tmp_path)
    assert "ListFile takes no 'pth'; did you mean path?" in done.stderr


def test_links_lead_somewhere():
    """Files and headings that the documents link to; what lies in the net is not asked for."""
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            if "://" in path:
                continue
            target = document.parent / path if path else document
            assert target.exists(), f"{document.name} links to {link}"
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE) if anchor else []
            known = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in known, f"{document.name} links to {link}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that looks like the checkout, with photos, masks and a run of the small recipe."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("tools", "configs", "slotcon_plugin", "docs", "README.md"):
        (place / name).symlink_to(ROOT / name)
    make_demo_scenes(place / "unlabelled", {"train": 66}, size=(96, 72))
    labelled = make_demo_scenes(place / "labelled", {"train": 6, "val": 4}, size=(96, 72))
    for kind in ("images", "annotations"):
        (labelled / kind / "test").symlink_to("val")
    (place / "my_photos").symlink_to("unlabelled/images/train")
    (place / "few_photos").symlink_to("labelled/images/train")
    command = next(
        c for f, c in documented() if f == "docs/pretrain.md" and "slotcon_small.py --photos my_photos/" in c
    )
    short = ["train_cfg.max_epochs=2", "default_hooks.logger.interval=1", "default_hooks.slot_health.interval=1"]
    done = run_python(*split(command), "--cfg-options", *short, cwd=place)
    assert done.returncode == 0, done.stderr
    (place / "shown.txt").write_text(done.stdout)
    return place


def quick() -> list[str]:
    """Of the tools in all documents, of slotcon in the README and the pages on converting and evaluating."""
    commands = {command for file, command in documented() if file.endswith(".md")}
    pages = ("README.md", "docs/convert.md", "docs/evaluate.md")
    ours = {command for file, command in documented() if file in pages and command.startswith("slotcon")}
    ours = {command for command in ours if not {"--network", "--layout"} & set(command.split())}  # files from elsewhere
    return sorted(command for command in ours if split(command)[1] in ("look", "export", "embed", "evaluate")) + sorted(
        command
        for command in commands
        if split(command)[0].startswith("tools/")
        and (
            (Path(split(command)[0]).stem in QUICK and not any(mark in command for mark in ELSEWHERE))
            or any(mark in command for mark in DRY)
        )
    )


@pytest.mark.slow
def test_quick_commands_of_the_documents_run(place, monkeypatch, capsys):
    """In the order of their names, in one process; what a reader puts in for capitals is put in here."""
    checkpoint = next((place / "work_dirs/slotcon_small").glob("iter_*.pth"))
    put_in = {
        **dict.fromkeys(["my_photos/", "path/to/photos", "data/photos", "PHOTOS"], "few_photos"),
        **dict.fromkeys(
            ["labelled/", "data/demo", "data/demo_scenes", "data/camvid", "CAMVID", "LABELLED"], "labelled"
        ),
        **dict.fromkeys(["CHECKPOINT", "CKPT"], str(checkpoint)),
        "CONFIG": "configs/pretrain/slotcon_small.py",
        **dict.fromkeys(
            ["RUN", "WORK_DIR", "runs/mine", "runs/slotcon", "work_dirs/slotcon_demo"], str(checkpoint.parent)
        ),
        "PLAN": "configs/benchmark/coco_main.py",
    }
    commands = quick()
    assert len(commands) >= 25, commands
    monkeypatch.chdir(place)
    for command in commands:
        words = [put_in.get(word, word) for word in split(command)]
        monkeypatch.setattr(sys, "argv", words)
        for name in ("OUT.pth", "OUT.pkl", "backbone.pth", "backbone.pkl"):
            (place / name).unlink(missing_ok=True)  # of one target, then of the next; not replaced without --overwrite
        status = 0
        try:
            main(words[1:]) if words[0] == "slotcon" else runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            status = end.code or 0
        assert status == 0, f"{command}: {status}\n{capsys.readouterr().err}"
    made = [place / name for name in ("groups.html", "vectors.npz", "continued.pkl", "OUT.safetensors", "run.sh")]
    made += [checkpoint.parent / name for name in ("curves.html", "prototypes.html")]
    made += [place / "OUT/model.safetensors"]
    assert all(path.stat().st_size > 500 for path in made)


@pytest.mark.slow
def test_the_recorded_run_is_what_a_run_shows(place, same_as_recorded):
    same_as_recorded((place / "shown.txt").read_text(), ROOT / "docs/pretrain.md", "slotcon_small")
