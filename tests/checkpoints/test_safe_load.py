"""Nothing in a file is executed, and every bad file is named with its reason."""

import argparse
import os
import pickle
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from slotcon_plugin.checkpoints.safe_load import LEGACY_TORCH_MAGIC, load_file
from slotcon_plugin.convert.tensors import tensors_of
from slotcon_plugin.errors import ConversionError


class Payload:
    """Unpickling this by an unsafe reader would create the file."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def write_torch(content, path):
    torch.save(content, path)


def write_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


WRITERS = [write_torch, write_legacy, write_pickle]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("call", "named"), [(os.system, "posix.system"), (exec, "exec"), (print, "print")])
def test_a_pickle_that_wants_to_run_something_is_refused(write, call, named, tmp_path, capsys):
    trap = tmp_path / "executed"
    argument = f"touch {trap}" if call is os.system else f"open({str(trap)!r}, 'w')"
    write({"model": {"w": np.zeros(2)}, "x": Payload(call, argument)}, tmp_path / "evil.pth")
    with pytest.raises(ConversionError, match=rf"evil.pth was refused.*names \S*{named}.*Nothing was executed"):
        load_file(tmp_path / "evil.pth")
    assert not trap.exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("write", WRITERS)
def test_getattr_looks_nothing_up(write, tmp_path):
    """The one dangerous name that mmengine's checkpoints contain."""
    write({"x": Payload(getattr, np.ndarray, "tofile")}, tmp_path / "x")
    assert load_file(tmp_path / "x") == {"x": None}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("dtype", ["O", np.dtype("O"), np.dtype([("a", "O")])])
def test_raw_bytes_do_not_become_pointers(write, dtype, tmp_path):
    """numpy.ndarray((1,), object, buffer) reads the buffer as addresses of objects."""
    write({"x": Payload(np.ndarray, (1,), dtype, bytearray(8))}, tmp_path / "x")
    with pytest.raises(ConversionError, match=r"refused.*numpy\.dtype"):
        load_file(tmp_path / "x")


def test_classes_of_the_known_checkpoints_are_read(tmp_path):
    from mmengine.logging import HistoryBuffer

    content = {
        "args": argparse.Namespace(arch="resnet50", lr=0.1),
        "numpy": [np.float64(0.5), np.int64(3), np.arange(3, dtype=np.float32)],
        "log": HistoryBuffer([1.0], [1]),
        "model": {"w": torch.arange(3.0)},
    }
    for write in (write_torch, write_legacy):
        write(content, tmp_path / "x")
        loaded = load_file(tmp_path / "x")
        assert loaded["args"] == content["args"]
        assert loaded["numpy"][:2] == [0.5, 3]
        assert loaded["numpy"][2].tolist() == [0, 1, 2]
        assert loaded["model"]["w"].tolist() == [0, 1, 2]
        assert type(loaded["log"]).__name__ == "Discarded"


def test_the_allow_list_does_not_leak_and_takes_nothing_from_others(tmp_path):
    torch.save({"x": Fraction(1, 2), "args": argparse.Namespace()}, tmp_path / "x")
    with torch.serialization.safe_globals([Fraction, argparse.Namespace]):
        before = set(torch.serialization.get_safe_globals())
        load_file(tmp_path / "x")
        assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(ConversionError, match=r"names fractions\.Fraction"):
        load_file(tmp_path / "x")


def nested(depth):
    """A dict with a tuple of a tuple of a ... for a key: hashing it recurses in C."""
    return b"\x80\x04})" + b"\x85\x94" * depth + b"K\x01s."


def test_a_pickle_that_would_end_the_process_is_refused(tmp_path):
    """Without the limit this is a segmentation fault."""
    (tmp_path / "x.pkl").write_bytes(nested(1_000_000))
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", nested(1_000_000))
        archive.writestr("archive/version", "3")
    for name in ("x.pkl", "x.pth"):
        with pytest.raises(ConversionError, match=rf"{name} cannot be read.*nested more than 1000 deep"):
            load_file(tmp_path / name)


def test_what_is_no_readable_file_is_said_so(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "no regular file"), ("", "no regular file"), ("x" * 300, "File name too long")):
        with pytest.raises(ConversionError, match=said):
            load_file(tmp_path / name)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_pickles_of_arrays_are_read(protocol, tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7), "b": np.float64(2.0)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "me"}, protocol))
    loaded = load_file(tmp_path / "x.pkl")
    assert loaded["__author__"] == "me"
    assert torch.as_tensor(loaded["model"]["a"]).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (loaded["model"]["n"].item(), loaded["model"]["b"]) == (7, 2.0)


def test_safetensors_are_told_by_content(tmp_path):
    save_file({"w": torch.arange(2.0)}, tmp_path / "x.pth", metadata={"note": '{"a": 1}', "text": "b"})
    loaded = load_file(tmp_path / "x.pth")
    assert loaded["state_dict"]["w"].tolist() == [0, 1]
    assert (loaded["note"], loaded["text"]) == ({"a": 1}, "b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", r"empty \(0 bytes\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "cannot be read as a checkpoint"),
        (b"<!DOCTYPE html><html></html>", "cannot be read as a checkpoint"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{truncated", "cannot be read.*safetensors"),
        (pickle.dumps([1, 2]), "holds a list; expected a dict"),
        (pickle.dumps(LEGACY_TORCH_MAGIC), "cannot be read as a checkpoint"),
    ],
)
def test_bad_files_are_explained(content, message, tmp_path):
    path = tmp_path / "bad.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConversionError, match=message) as caught:
        load_file(path)
    assert "bad.pth" in str(caught.value)


def test_a_truncated_torch_file_is_explained(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConversionError, match=r"cannot be read as a checkpoint .*: cut short: a download or a copy"):
        load_file(tmp_path / "x.pth")


def test_a_hole_in_a_torch_file_is_found_by_its_checksum(tmp_path):
    torch.save({"w": torch.randn(5000)}, tmp_path / "x.pth")
    content = bytearray((tmp_path / "x.pth").read_bytes())
    content[8192 : 8192 + 4096] = bytes(4096)
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ConversionError, match=r"x\.pth cannot be read.*damaged: the checksum of .*/data/0 is wrong"):
        load_file(tmp_path / "x.pth")


@pytest.mark.parametrize("write", WRITERS)
def test_big_endian_arrays_arrive_in_the_order_of_this_machine(write, tmp_path):
    values = np.arange(4, dtype=">f4").reshape(2, 2)
    write({"model": {"w": values, "n": np.array(7, ">i4")}, "x": np.array([1.5], ">f8")[0]}, tmp_path / "x")
    content = load_file(tmp_path / "x")
    tensors = tensors_of(content, "x")
    assert torch.equal(tensors["model.w"], torch.arange(4.0).reshape(2, 2))
    assert (tensors["model.n"].item(), content["x"]) == (7, 1.5)


class DtypeWithFlags:
    """A dtype of numbers whose state says that they are pointers to objects."""

    def __reduce__(self):
        return np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 63)


@pytest.mark.parametrize("write", WRITERS)
def test_of_a_dtype_s_state_only_the_byte_order_is_taken(write, tmp_path):
    write({"x": Payload(np.ndarray, (1,), DtypeWithFlags(), bytearray(8))}, tmp_path / "x")
    assert not load_file(tmp_path / "x")["x"].dtype.hasobject


def test_numbers_that_torch_lacks_are_refused_by_name(tmp_path):
    write_pickle({"model": {"w": np.arange(3, dtype=np.longdouble)}}, tmp_path / "x")
    with pytest.raises(ConversionError, match=r"x\.pkl: model\.w is an array of \S+, which torch does not have"):
        tensors_of(load_file(tmp_path / "x"), "x.pkl")
