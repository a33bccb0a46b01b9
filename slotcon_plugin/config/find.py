"""Configs by their names, in a checkout and in an installed package."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from slotcon_plugin.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped() -> Path:
    """Where ``configs/`` and ``tools/`` are: ``.mim`` of an installed package, as in OpenMMLab's, or the checkout."""
    installed = _PACKAGE / ".mim"
    return installed if installed.is_dir() else _PACKAGE.parent


def shipped_file(path: str) -> str:
    """A config by its path in the checkout: the file of that path here, else the one that comes with the package."""
    own = shipped() / path
    return path if Path(path).exists() or not own.exists() else str(own)


def shipped_tool(path: str) -> str:
    """A script by its path in the checkout, always the package's own: others have a tools/train.py, too."""
    own = shipped() / path
    return path if Path(path).resolve() == own.resolve() else str(own)


def find_config(name: str | Path) -> Path:
    """The config file that is meant.

    Args:
        name: a file; a path that begins with ``configs/``, which need not be there in the current folder; or a config's
            name, ``slotcon_small``.

    Raises:
        UserError: there is no such file, or the name is that of several.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (own := shipped() / path).is_file():
        return own
    known = list(_config_files())
    if path.parent == Path():
        found = [file for file in known if file.stem == path.name.removesuffix(".py")]
        if len(found) == 1:
            return found[0]
        if found:
            paths = " or ".join(str(file.relative_to(shipped())) for file in found)
            raise UserError(f"there are {len(found)} configs called {name}: say {paths}")
    candidates = [path.with_name(file.name) for file in path.parent.glob("*.py")] + [Path(file.stem) for file in known]
    near = difflib.get_close_matches(path.stem, [file.stem for file in candidates], n=1, cutoff=0.8)
    meant = next((file for file in candidates if near and file.stem == near[0]), None)
    hint = f"did you mean {meant}?" if meant else "`slotcon configs` lists those that come with the package"
    raise UserError(f"there is no config {name}; {hint}")


def names_pretraining(word: str | Path) -> bool:
    """Whether a word where a config or something else may stand means a config: a file of Python's, or a known name."""
    if Path(word).suffix == ".py":
        return True
    return not Path(word).exists() and any(file.stem == str(word) for file in _config_files("pretrain"))


def list_configs(kind: str | None = None) -> dict[str, str]:
    """Name -> what it is for, in a line: the beginning of the config's docstring or of its first comment.

    Args:
        kind: ``pretrain``, ``transfer`` or ``benchmark``; None = all.

    Raises:
        UserError: no such kind.
    """
    kinds = sorted(path.name for path in (shipped() / "configs").iterdir() if path.is_dir())
    if kind is not None and kind not in kinds:
        raise UserError(f"kinds of configs are {', '.join(kinds)}, got {kind!r}")
    return {file.stem: _first_line(file) for file in _config_files(kind or "")}


def _config_files(kind: str = "") -> Iterator[Path]:
    """Configs for users, in the order of their names; not the parts in ``_base_``."""
    root = shipped() / "configs"
    return (file for file in sorted((root / kind).rglob("*.py")) if "_base_" not in file.parts)


def _first_line(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if docstring := ast.get_docstring(ast.parse(text)):
        return " ".join(docstring.split("\n\n")[0].split())
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines()))
    return re.split(r"[.:;](?=\s|$)", comment)[0]
