"""Arguments that several tools share."""

import pytest

from slotcon_plugin.arguments import add_cfg_options, add_device, tool_parser
from slotcon_plugin.cli import build_parser
from slotcon_plugin.key_values import spelled


def options(*pairs: str) -> dict:
    parser = tool_parser("")
    add_cfg_options(parser)
    return parser.parse_args(["--cfg-options", *pairs]).cfg_options


def test_values_are_what_they_look_like():
    assert options("a=1", "b=0.5", "c=True", "d=None", "e=x", "f=[1,2]", "g=(1,'x')", "h=1,2", "+i=1e-3") == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": None,
        "e": "x",
        "f": [1, 2],
        "g": (1, "x"),
        "h": [1, 2],
        "+i": 1e-3,
    }


def test_a_dict_is_spelled_as_in_a_config():
    given = options("model.head=dict(_delete_=True, type='FCN', sizes=[1, (2, 3)], more=dict(a=-1.5, b={'c': None}))")
    sizes, more = [1, (2, 3)], {"a": -1.5, "b": {"c": None}}
    assert given == {"model.head": {"_delete_": True, "type": "FCN", "sizes": sizes, "more": more}}
    assert options("a={'b': 1}", "c=1") == {"a": {"b": 1}, "c": 1}
    assert options("a=[dict(b=1,c=(2,3)),dict(b=4)]") == {"a": [{"b": 1, "c": (2, 3)}, {"b": 4}]}
    assert options("a=${queue_size(65536, 32)}") == {"a": "${queue_size(65536, 32)}"}


def test_what_is_in_quotes_is_a_text():
    assert options("a='ImageNet, 100 epochs'", 'b="5"', r"c='it\'s'", "d='None'", "e='[1]'", "f='x','y'") == {
        "a": "ImageNet, 100 epochs",
        "b": "5",
        "c": "it's",
        "d": "None",
        "e": "[1]",
        "f": ["x", "y"],
    }


def test_dicts_stand_anywhere_in_a_list():
    dicts = [1, {"a": [2, {"b": None}]}]
    assert options("a=[1, dict(a=[2, dict(b=None)])]", "b=[1,{'a':[2,{'b':None}]}]", "c=[1,{}]") == {
        "a": dicts,
        "b": dicts,
        "c": [1, {}],
    }
    assert options("a={photos}/x.pth", "b=[--data,{photos}]", "c=[${a},${b}]") == {  # a plan's data sets, references
        "a": "{photos}/x.pth",
        "b": ["--data", "{photos}"],
        "c": ["${a}", "${b}"],
    }


@pytest.mark.parametrize(
    "text",
    [
        *("x", "my photos/a=b", "2024_05", "${queue_size(65536, 32)}", "ImageNet, 100 epochs", "5", "1e-3", " 5"),
        *("None", "true", "[1]", "(", "x,(y", "'x'", "it's", 'the "x"', "dict(a=1", "{}", "", "a\nb, c"),
    ],
)
def test_a_text_comes_back_as_it_was_written(text):
    assert options(f"k={spelled(text)}") == {"k": text}


def test_quotes_are_for_texts_that_need_them():
    assert [spelled(text) for text in ("my photos/a", "007", "5")] == ["my photos/a", "007", "'5'"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("[x, dict(a=1)]", "x is no value"),
        ("dict(a=1", "was never closed"),
        ("dict(a=Name)", "Name is no value"),
        ("dict(**a)", "a is no value"),
        ("dict(a=print('x'))", "print('x') is no value"),
        ("x,(y", "brackets"),
    ],
)
def test_what_is_no_value_is_refused(value, why, capsys):
    with pytest.raises(SystemExit):
        options(f"k={value}")
    assert why in capsys.readouterr().err


def test_names_of_folders_are_no_numbers():
    given = options("a=2024_05", "b=007", "c=12", "d=1_000", "e=-3", "f=0.5", "g=0", "h=1e-3")
    assert given == {"a": "2024_05", "b": "007", "c": 12, "d": 1000, "e": -3, "f": 0.5, "g": 0, "h": 1e-3}


def test_blanks_in_the_texts_of_a_list_stay():
    assert options("a=['/data/my photos', \"b\"]", "b=[x,'y']", "c=('a b', 1)") == {
        "a": ["/data/my photos", "b"],
        "b": ["x", "y"],
        "c": ("a b", 1),
    }


def test_a_path_with_blanks_and_equals_signs_stays_as_it_is():
    assert options("data_root=/my photos/a=b", "b='/x y'") == {"data_root": "/my photos/a=b", "b": "/x y"}


def test_nothing_given_leaves_the_default_alone():
    parser = tool_parser("")
    add_cfg_options(parser)
    assert options("a=1") == {"a": 1}
    assert parser.parse_args([]).cfg_options == {}


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda", 0, "there is no cuda: PyTorch finds no GPU or no driver for it"),
        ("cuda:2", 2, "there is no cuda:2: the GPUs here are cuda:0 to cuda:1"),
        ("gpu", 2, "expected auto, cpu, cuda or cuda:NUMBER, got 'gpu'"),
        ("mps", 2, "expected auto, cpu, cuda or cuda:NUMBER, got 'mps'"),
        ("cuda:1", 2, None),
        ("cpu", 0, None),
    ],
)
def test_devices_that_are_not_there(name, gpus, message, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    parser = tool_parser("")
    add_device(parser)
    if message is None:
        assert parser.parse_args(["--device", name]).device == name
        return
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--device", name])
    assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(("gpus", "device"), [(2, "cuda"), (0, "cpu")])
def test_the_gpu_is_taken_when_there_is_one_and_a_word_said_when_there_is_none(gpus, device, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "H100")
    parser = tool_parser("")
    add_device(parser)
    assert parser.parse_args([]).device == device
    assert capsys.readouterr().err.startswith("on the CPU: " if device == "cpu" else "")


def test_a_mistyped_option_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        build_parser(["pretrain"]).parse_args(["pretrain", "photos", "--buget", "30m", "--xyzzy=1"])
    assert "unrecognized arguments: --buget 30m --xyzzy=1; did you mean --budget?\n" in capsys.readouterr().err
