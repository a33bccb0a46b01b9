"""Files that appear whole or not at all, and their hashes. Nothing here knows what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from slotcon_plugin.errors import UserError

PART_PREFIX = ".part-"
"""How the name of a file begins that is still being written (or whose writer was killed)."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file, or a folder of files, under a temporary name; it takes its own when the block ends well.

    The temporary name keeps the suffix, which some writers go by. The content is flushed to the disk before the
    renaming, so that after a power cut the name holds the old file or the new one. Folders on the way are made.

        with replacing(out) as partial:
            torch.save(state, partial)

    Raises:
        OSError: the disk is full, the folder is read-only, ...; ``path`` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, former = (path.with_name(f"{PART_PREFIX}{os.getpid()}-{mark}{path.name}") for mark in ("", "former-"))
    try:
        yield partial
        for written in partial.rglob("*") if partial.is_dir() else [partial]:
            with written.open("rb+") as file:
                os.fsync(file.fileno())
        if partial.is_dir() and path.is_dir():  # a folder takes no other's place
            os.replace(path, former)
        os.replace(partial, path)
    finally:
        if former.exists() and not path.exists():  # interrupted between the two renamings
            os.replace(former, path)
        for left in (partial, former):
            with suppress(OSError):  # of a read-only disk: what kept the file from being written is the one to tell
                if left.is_dir():
                    shutil.rmtree(left)
                left.unlink(missing_ok=True)


def require_writable(path: str | Path, option: str = "--out") -> None:
    """Try whether a file can be written, before the work that it is for; folders on the way are made.

    Raises:
        UserError: a folder has its name, or nothing can be written beside it; names the folder and the option.
    """
    path = Path(path)
    trial = path.with_name(f"{PART_PREFIX}{os.getpid()}-trial-{path.name}")
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: expected the name of a file, see {option}")
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(
            f"{path.parent}: {path.name} cannot be written there ({error.strerror or error}): expected a folder "
            f"that you may write to; name another one with {option}"
        ) from error


def free_name(path: str | Path, word: str) -> Path:
    """The first of ``NAME.WORD1``, ``NAME.WORD2``, ... beside a file or folder that nothing has."""
    path, number = Path(path), 1
    while (free := path.with_name(f"{path.name}.{word}{number}")).exists():
        number += 1
    return free


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) in one piece."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any, indent: int | None = 2) -> None:
    """Write a JSON file in one piece, its keys in the order given."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def zip_damage(path: str | Path) -> str | None:
    """What is wrong with a zip archive, which torch's files are; None if it opens and every checksum in it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__  # a flipped bit can ask for encryption, or an unknown compression
    return f"the checksum of {member} is wrong" if member else None


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def from_here(path: str | Path) -> str:
    """A path as one would type it: below the current folder relative to that."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
