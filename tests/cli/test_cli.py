"""The `slotcon` command: what it understands reaches the functions, and it ends as every command does."""

import argparse
import functools
import inspect
import re
import runpy
import subprocess
import sys
from importlib import import_module

import pytest

import slotcon_plugin
from slotcon_plugin import cli
from slotcon_plugin.actions.settings import defaults_of
from slotcon_plugin.cli.settings import EVALUATING, LOOKING
from slotcon_plugin.config import load_config
from slotcon_plugin.errors import RunFailedError, RunStoppedError, UserError
from slotcon_plugin.evaluation.pixel_retrieval import compare_pixel_retrieval
from slotcon_plugin.evaluation.probe import probe_backbone
from slotcon_plugin.evaluation.run import evaluate_unsupervised, probe_checkpoint
from slotcon_plugin.visualization.run import plot_run, visualize_groups, visualize_prototypes, visualize_retrieval


def call(words: str, monkeypatch, function: str | None = None, outcome=None) -> tuple[int, dict]:
    """Status of `slotcon WORDS`, and what the function got, by the names of its arguments."""
    got = {}
    if function:
        room = import_module(f"slotcon_plugin.actions.{slotcon_plugin._ACTIONS[function]}")
        original = getattr(room, function)
        signature = inspect.signature(original)

        @functools.wraps(original)  # a second call in a test finds the signature through it
        def stand_in(*args, **kwargs):
            if outcome:
                raise outcome
            got.update(signature.bind(*args, **kwargs).arguments)

        monkeypatch.setattr(room, function, stand_in)
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    return end.value.code, got


def test_pretrain(monkeypatch):
    words = "pretrain photos/ --out runs/a --method vader --init r50.pth --epochs 20 --cfg-options a.b=1"
    status, got = call(words, monkeypatch, "pretrain")
    assert status == 0
    asked = dict(photos="photos/", out="runs/a", method="vader", init="r50.pth", epochs=20, options={"a.b": 1})
    assert {name: got[name] for name in asked} == asked
    assert got["resume"] is False and got["launcher"] == "none"
    assert call("pretrain --out a --resume", monkeypatch, "pretrain")[1]["resume"] is True


@pytest.mark.parametrize("word", ["--out", "--work-dir"])
@pytest.mark.parametrize("command", ["pretrain photos", "finetune boxes", "benchmark demo", "quickstart photos"])
def test_a_run_has_its_place_by_our_word_or_openmmlabs(command, word):
    words = f"{command} {word} runs/a".split()
    assert str(cli.build_parser(words[:1]).parse_args(words).out) == "runs/a"


def test_photos_have_one_place(monkeypatch, capsys):
    assert call("pretrain photos/ --data-root /data", monkeypatch, "pretrain")[0] == 2
    assert "photos are given twice, as photos/ and by --data-root /data" in capsys.readouterr().err


@pytest.mark.parametrize("more", ["--dry-run", "--print-commands", "--slurm run.sh --gpus 1"])
def test_one_step_is_no_whole_plan(more, monkeypatch, capsys):
    assert call(f"benchmark demo --step data/scenes {more}", monkeypatch)[0] == 2
    assert "--step runs one step" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["pretrain photos/ --gpus 2 --epochs 3", "finetune boxes/ --gpus 2 --backbone a"])
def test_a_command_on_several_gpus_starts_itself_again(words, monkeypatch):
    started = []
    monkeypatch.setattr("slotcon_plugin.launch.main", lambda words: started.append(words) or 75)
    assert call(words, monkeypatch, words.split()[0]) == (75, {})
    own = ["--standalone", "--nproc_per_node", "2", "-m", "slotcon_plugin"]
    assert started == [[*own, *words.split(), "--launcher", "pytorch"]]


def test_finetune(monkeypatch, capsys):
    words = "finetune boxes/ --backbone runs/a --out runs/b --iterations 500 --overwrite --cfg-options a.b=1"
    status, got = call(words, monkeypatch, "finetune")
    asked = dict(labels="boxes/", backbone="runs/a", out="runs/b", iterations=500, options={"a.b": 1}, overwrite=True)
    assert status == 0 and {name: got[name] for name in asked} == asked
    assert got["config"] is None and got["launcher"] == "none" and got["fpn"] is True
    assert call("finetune boxes/ --backbone runs/a --no-fpn", monkeypatch, "finetune")[1]["fpn"] is False


def test_export(monkeypatch):
    assert call("export runs/a --out b.pth", monkeypatch, "export")[1]["out"] == "b.pth"
    assert call("export runs/a b.pth --out c.pth", monkeypatch, "export")[0] == 2
    words = "export runs/a b.pkl --target detectron2 --overwrite --no-fpn --mean 1 2 3 --kind moco"
    status, got = call(words, monkeypatch, "export")
    options = got.pop("options")
    assert (status, got) == (0, dict(run="runs/a", out="b.pkl", target="detectron2", overwrite=True))
    assert options["fpn"] is False and options["kind"] == "moco" and options["declared"]["mean"] == [1, 2, 3]


def test_evaluate(monkeypatch):
    words = "evaluate runs/a labelled --test test --stages -1 --input-size 64 96 --device cpu"
    status, got = call(words, monkeypatch, "evaluate")
    assert (status, got["measure"], got["test"]) == (0, "probe", "test")
    assert got["settings"] == dict(stages=(-1,), input_size=(64, 96))


def test_embed(monkeypatch):
    words = "embed runs/a photos --out e.npz --level crop --grid 2 4 --short-side 96 --device cpu"
    status, got = call(words, monkeypatch, "embed")
    assert (status, got["level"], got["grid"], got["photos"]) == (0, "crop", (2, 4), "photos")
    assert got["settings"] == dict(short_side=96, stages=[-1], batch_size=16, device="cpu")


@pytest.mark.parametrize(
    "words",
    [
        *("embed a b --short-side 0", "embed a b --short-side -5", "embed a b --batch-size 0", "embed a b --grid 0 3"),
        *("evaluate a b --neighbours -3", "evaluate a b --input-size 0 64", "evaluate a b --epochs 0"),
        *("tools/eval_probe.py a --data b --neighbours -1", "tools/eval_unsupervised_seg.py a --data b --short-side 0"),
        *("tools/visualize_groups.py a b --short-side 0", "tools/visualize_prototypes.py a b --nearest 0"),
        *("tools/visualize_retrieval.py a b c --short-side 0", "tools/plot_run.py a --smooth 0"),
        "tools/eval_pixel_retrieval.py a b --num-pairs 0",
    ],
)
def test_a_number_out_of_its_range_is_refused_by_its_option(words, monkeypatch, capsys, repo):
    program, *rest = words.split()
    if program.endswith(".py"):
        monkeypatch.setattr(sys, "argv", [program, *rest])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repo / program), run_name="__main__")
        status = end.value.code
    else:
        status, _ = call(words, monkeypatch)
    option = next(word for word in rest if word.startswith("--") and word != "--data")
    assert status == 2
    assert re.search(rf"argument {option}: expected a whole number of at least [01], got", capsys.readouterr().err)


_RUN_OPTIONS = {
    "--resume": dict(resume=True),
    "--resume b.pth": dict(resume="b.pth"),
    "--overwrite": dict(overwrite=True),
    "--batch-mode scale-lr": dict(batch_mode="scale-lr"),
    "--cfg-options a.b=1 c=x": dict(options={"a.b": 1, "c": "x"}),
    "--launcher slurm": dict(launcher="slurm"),
}
ARRIVES = {  # a command -> what may stand behind it -> the arguments of its function that are others then
    "pretrain": {
        "photos/": dict(photos="photos/"),
        "--out runs/a": dict(out="runs/a"),
        "--method vader": dict(method="vader"),
        "--config slotcon_coco": dict(config="slotcon_coco"),
        "--init r50.pth": dict(init="r50.pth"),
        "--init-title ImageNet": dict(init_title="ImageNet"),
        "--network resnet50": dict(network="resnet50"),
        "--epochs 20": dict(epochs=20),
        "--budget 1h30m": dict(budget=5400.0),
        "--probe labelled/": dict(probe="labelled/"),
        "--data-root /data": dict(data_root="/data"),
        **_RUN_OPTIONS,
    },
    "finetune boxes/": {
        "": dict(labels="boxes/"),
        "--backbone runs/a": dict(backbone="runs/a"),
        "--out runs/b": dict(out="runs/b"),
        "--iterations 500": dict(iterations=500),
        "--config fpn_r18_own": dict(config="fpn_r18_own"),
        "--network resnet50": dict(network="resnet50"),
        "--pretraining ImageNet": dict(pretraining="ImageNet"),
        "--no-fpn": dict(fpn=False),
        **_RUN_OPTIONS,
    },
    "embed runs/a photos": {
        "": dict(run="runs/a", photos="photos"),
        "more": dict(photos=["photos", "more"]),
        "--out e.parquet": dict(out="e.parquet"),
        "--level crop": dict(level="crop"),
        "--overwrite": dict(overwrite=True),
        "--grid 2 4": dict(grid=(2, 4)),
        "--boxes b.json": dict(boxes="b.json"),
        "--limit 5": dict(limit=5),
        "--short-side 96": dict(short_side=96),
        "--stages -2 -1": dict(stages=[-2, -1]),
        "--batch-size 3": dict(batch_size=3),
        "--config c.py": dict(config="c.py"),
        "--network resnet50": dict(network="resnet50"),
        "--branch student": dict(branch="student"),
        "--decoder": dict(decoder=True),
        "--device cpu": dict(device="cpu"),
    },
}


@pytest.mark.parametrize(("command", "option"), [(c, option) for c, options in ARRIVES.items() for option in options])
def test_an_option_arrives_under_its_name_and_changes_nothing_else(command, option, monkeypatch):
    monkeypatch.setattr("slotcon_plugin.arguments.choose_device", lambda: ("cuda", "there is one"))

    def arguments(words):
        status, got = call(words, monkeypatch, command.split()[0])
        assert status == 0 and got
        return got.pop("settings", {}) | got

    assert arguments(f"{command} {option}") == arguments(command) | ARRIVES[command][option]


@pytest.mark.parametrize("command", ARRIVES)
def test_no_option_is_left_out_of_these(command):
    name = command.split()[0]
    parser = next(a for a in cli.build_parser([name])._actions if isinstance(a, argparse._SubParsersAction))
    tried = {option.split()[0] for option in ARRIVES[command] if option}
    elsewhere = {"--help", "--gpus", "--local_rank", "--local-rank", "--work-dir"}
    known = {word for a in parser.choices[name]._actions for word in a.option_strings if word.startswith("--")}
    assert known - elsewhere == {word for word in tried if word.startswith("--")}


def test_without_a_command_there_is_help(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([])
    shown = capsys.readouterr().out
    assert end.value.code == 0 and [word for word in cli.COMMANDS if word not in shown] == []


@pytest.mark.parametrize(
    ("settings", "use", "functions"),
    [
        (EVALUATING, "probe", (probe_checkpoint, probe_backbone)),
        (EVALUATING, "prototypes", (evaluate_unsupervised,)),
        (EVALUATING, "retrieval", (compare_pixel_retrieval,)),
        (LOOKING, "groups", (visualize_groups,)),
        (LOOKING, "prototypes", (visualize_prototypes,)),
        (LOOKING, "retrieval", (visualize_retrieval,)),
        (LOOKING, "curves", (plot_run,)),
    ],
)
def test_settings_are_those_of_the_function_with_its_defaults_told(settings, use, functions):
    """None is missing but those of every use, and what the help says in brackets is the function's own default."""
    defaults = functools.reduce(dict.__or__, (defaults_of(function) for function in functions))
    offered = {setting.name: setting.help for setting in settings if use in setting.uses.split()}
    assert offered.keys() <= defaults.keys()
    everywhere = {"device", "config", "pretraining", "out_dir", "result_file", "trained", "checkpoints", "bank_size"}
    assert defaults.keys() - offered.keys() <= everywhere
    for name, text in offered.items():
        if isinstance(defaults[name], (int, float)) and defaults[name] is not False:
            assert str(defaults[name]).lstrip("0") in text.partition("(")[2], f"{name}: {text}"


def test_look(monkeypatch):
    assert call("look runs/a", monkeypatch, "look")[1] == dict(run="runs/a", photos=[], out=None, kind=None)
    got = call("look runs/a p q --kind retrieval --device cpu", monkeypatch, "look")[1]
    assert (got["photos"], got["settings"]) == (["p", "q"], {"device": "cpu"})
    words = "look runs/a p --short-side 64 --limit 3 --points 0.5,0.25 1,0 --device cpu"
    settings = dict(short_side=64, limit=3, points=((0.5, 0.25), (1.0, 0.0)), device="cpu")
    assert call(words, monkeypatch, "look")[1]["settings"] == settings
    got = call("look runs/a runs/b --kind curves --smooth 3", monkeypatch, "look")[1]
    assert (got["photos"], got["settings"]) == (["runs/b"], {"smooth": 3})


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(UserError("x"), 2), (RunFailedError("x"), 1), (RunStoppedError("x"), 75), (KeyboardInterrupt(), 130)],
)
def test_it_ends_as_every_command_does(outcome, status, monkeypatch):
    assert call("pretrain photos/", monkeypatch, "pretrain", outcome)[0] == status


def test_configs(monkeypatch, capsys, repo):
    assert call("configs pretrain", monkeypatch)[0] == 0
    assert re.search(r"  slotcon_imagenet_200e +SlotCon on ImageNet-1K for 200 epochs", capsys.readouterr().out)
    assert call("configs vader_small", monkeypatch)[0] == 0
    assert capsys.readouterr().out.strip() == str(repo / "configs/pretrain/vader_small.py")
    assert call("configs vader_smal", monkeypatch)[0] == 2


def test_a_copy_of_a_config_is_the_config_wherever_it_lies(monkeypatch, capsys, tmp_path):
    mine = tmp_path / "mine.py"
    assert call(f"configs vader_small --out {mine}", monkeypatch)[0] == 0
    assert load_config(mine).to_dict() == load_config("vader_small").to_dict()
    for words in (
        f"configs vader_small --out {mine}",
        f"configs pretrain --out {tmp_path}/all.py",
        f"configs --out {mine}",
    ):
        assert call(words, monkeypatch)[0] == 2
    capsys.readouterr()
    assert call("configs vader_small --out /proc/mine.py", monkeypatch)[0] == 2, "a file system that takes no files"
    assert "error: /proc: mine.py cannot be written there" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_teaches(name, capsys, monkeypatch):
    assert call(f"{name} --help", monkeypatch)[0] == 0
    assert f"    slotcon {name}" in capsys.readouterr().out, "no example"


def test_every_argument_is_explained():
    words = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in words.choices.items():
        silent = [a.dest for a in parser._actions if not a.help and a.dest != "launcher"]
        assert not silent, f"slotcon {name}: no word on {silent}"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, capsys, monkeypatch):
    pytest.importorskip("shtab")
    assert call(f"completion {shell}", monkeypatch)[0] == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*cli.COMMANDS, "--short-side", "--method"))


def test_bash_completes(capsys, monkeypatch):
    pytest.importorskip("shtab")
    call("completion bash", monkeypatch)
    ask = 'COMP_WORDS=(slotcon embed --le); COMP_CWORD=2; _shtab_slotcon; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{capsys.readouterr().out}\n{ask}"], capture_output=True, text=True)
    assert done.stdout.split() == ["--level"], done.stderr


def test_help_is_quick_and_needs_no_torch():
    code = "import sys\nfrom slotcon_plugin.cli import build_parser\nbuild_parser(['pretrain']).format_help()\n"
    code += "print([m for m in ('torch', 'cv2', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
