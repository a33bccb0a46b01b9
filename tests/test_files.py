"""Files are whole or not there."""

import errno
import hashlib
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from slotcon_plugin.errors import UserError
from slotcon_plugin.files import free_name, replacing, require_writable, sha256_of, write_json, write_text, zip_damage


def test_a_file_takes_its_name_when_it_is_complete(tmp_path):
    out = tmp_path / "new" / "a.json"
    with replacing(out) as partial:
        assert partial.suffix == ".json"  # some writers go by it
        partial.write_text("half")
        assert not out.exists()
        partial.write_text("whole")
    assert out.read_text() == "whole"
    assert os.listdir(out.parent) == ["a.json"]


def test_after_an_error_the_old_file_is_as_it_was_and_nothing_else_is_left(tmp_path):
    out = tmp_path / "a.txt"
    out.write_text("old")

    def write():
        with replacing(out) as partial:
            partial.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write()
    assert out.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_of_a_read_only_disk_the_first_error_is_told(tmp_path, monkeypatch):
    """There removing is refused, too, even of what is not there."""

    def refused(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(OSError, match="the first"), replacing(tmp_path / "a.txt"):
        raise OSError(errno.EROFS, "the first")


def test_a_folder_interrupted_between_its_two_renamings_is_as_it_was(tmp_path, monkeypatch):
    out, rename = tmp_path / "out", os.replace
    out.mkdir()
    (out / "old").write_text("kept")

    def interrupted(here, there):
        if Path(there) == out and "former" not in str(here):
            raise KeyboardInterrupt
        rename(here, there)

    monkeypatch.setattr(os, "replace", interrupted)
    writing = replacing(out)
    partial = writing.__enter__()
    partial.mkdir()
    with pytest.raises(KeyboardInterrupt):
        writing.__exit__(None, None, None)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_a_free_name_is_the_first_that_nothing_has(tmp_path):
    assert free_name(tmp_path / "run.b", "old") == tmp_path / "run.b.old1"
    (tmp_path / "run.b.old1").mkdir()
    (tmp_path / "run.b.old2").touch()
    assert free_name(tmp_path / "run.b", "old") == tmp_path / "run.b.old3"


def test_a_place_is_tried_and_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "old").write_text("old")
    for name in ("old", "new/folder/a.png"):
        require_writable(tmp_path / name)
    assert (tmp_path / "old").read_text() == "old" and os.listdir(tmp_path / "new/folder") == []
    with pytest.raises(UserError, match=r"new is a folder: expected the name of a file, see --out"):
        require_writable(tmp_path / "new")
    with pytest.raises(UserError, match=r"/old: a\.png cannot be written there \(.*\).*another one with --picture"):
        require_writable(tmp_path / "old/a.png", "--picture")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)  # root may write anywhere
    with pytest.raises(UserError, match=r"a\.png cannot be written there \(Permission denied\)"):
        require_writable(tmp_path / "a.png")


def test_the_mode_is_the_umask_s(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_json_keeps_order_and_letters(tmp_path):
    write_json(tmp_path / "a.json", {"b": "é", "a": 1}, indent=None)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{"b": "é", "a": 1}\n'


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = os.urandom(3_000_000)  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_zip_damage_names_what_is_wrong_and_never_raises(tmp_path):
    """Some flips ask for an unknown compression, a password, a newer zip, or spoil a name's encoding."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("member\u00e9", bytes(range(64)))
    assert zip_damage(path) is None
    whole = path.read_bytes()
    start = whole.index(bytes(range(64)))
    for position in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            said = zip_damage(path)
            if start <= position < start + 64:
                assert said
                assert "member" in said
    path.write_bytes(whole[:-30])
    assert zip_damage(path)
    assert zip_damage(tmp_path / "absent")
