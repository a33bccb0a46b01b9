"""Reading a checkpoint file without running anything that it contains.

Three containers, told apart by their content and never by the file's name: a torch file (zip, or the format before
torch 1.6), safetensors, and a plain pickle of numpy arrays (detectron2's ``.pkl``). Pickles are read with a short
allow-list; a file that names anything else is refused, and the message says what it named.
"""

from __future__ import annotations

import argparse
import json
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from slotcon_plugin.errors import ConversionError
from slotcon_plugin.files import zip_damage

LEGACY_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # first pickled object of a torch file before 1.6


class Discarded:
    """Stands in for objects of the training state (log histories) that no conversion reads."""


def _no_attribute(owner: Any, name: str) -> None:
    """Stands in for ``getattr``, which mmengine's log histories name; looks nothing up."""


class _Array(np.ndarray):
    """numpy's array for pickles: numpy itself would take raw bytes for an array of object pointers."""

    def __new__(cls, shape: Any, dtype: Any = float, buffer: Any = None) -> np.ndarray:
        return np.ndarray(shape, _numeric_dtype(dtype), buffer)

    def __setstate__(self, state: tuple) -> None:
        *before, dtype, fortran_order, content = state
        super().__setstate__((*before, _numeric_dtype(dtype), fortran_order, content))


class _Dtype:
    """numpy's dtype for pickles: of their state the byte order alone is read.

    numpy itself would also take flags from there, by which numbers pass for pointers to objects.
    """

    def __init__(self, code: Any, align: bool = False, copy: bool = True) -> None:
        self.numpy = _numeric_dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.numpy = self.numpy.newbyteorder(state[1])


def _numeric_dtype(code: Any, align: bool = False, copy: bool = True) -> np.dtype:
    dtype = code.numpy if isinstance(code, _Dtype) else np.dtype(code)
    if dtype.kind not in "biufc":
        raise pickle.UnpicklingError(f"GLOBAL numpy.dtype of {code!r}")
    return dtype


def _empty_array(kind: type, shape: Any, dtype: Any) -> np.ndarray:
    """numpy's ``_reconstruct``: what the array's state fills."""
    return np.ndarray.__new__(_Array, (0,), "b")


def _scalar(dtype: Any, content: bytes) -> np.generic:
    return _core.multiarray.scalar(_numeric_dtype(dtype), content)


def _from_buffer(buffer: Any, dtype: Any, *shape_and_order: Any) -> np.ndarray:
    return _core.numeric._frombuffer(buffer, _numeric_dtype(dtype), *shape_and_order)


_core = np._core if hasattr(np, "_core") else np.core

# What the known kinds of checkpoint contain beside tensors. Numpy's module has two spellings since numpy 2.
SAFE_GLOBALS: dict[str, Any] = {
    "argparse.Namespace": argparse.Namespace,  # SlotCon's and PixPro's command lines
    "mmengine.logging.history_buffer.HistoryBuffer": Discarded,
    "builtins.getattr": _no_attribute,
    "numpy.ndarray": _Array,
    "numpy.dtype": _numeric_dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _core.multiarray._reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _core.multiarray.scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _core.numeric._frombuffer for core in ("core", "_core")},
    **{f"numpy.dtypes.{type(dtype).__name__}": type(dtype) for dtype in map(np.dtype, "?bhilqBHILQefd")},
}
# As this module reads them; a training that is resumed wants numpy's own objects, to save them again.
_GLOBALS: dict[str, Any] = {
    **SAFE_GLOBALS,
    "numpy.dtype": _Dtype,
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}

_ZIP = b"PK\x03\x04"
_MAX_NESTING = 1000
_MAX_OPERATIONS = 20_000_000


class _NumpyUnpickler(pickle.Unpickler):
    """A plain pickle of containers, strings, numbers and numpy arrays; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {**_GLOBALS, "builtins.bytearray": bytearray, "_codecs.encode": _encode_latin1}
        full_name = f"{module}.{name}"
        if full_name not in allowed:
            raise pickle.UnpicklingError(f"GLOBAL {full_name}")
        return allowed[full_name]


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"GLOBAL _codecs.encode with {encoding!r}")
    return text.encode("latin1")


def load_file(path: str | Path) -> dict[str, Any]:
    """Everything that the file holds, tensors on the CPU; nothing in the file is executed.

    Raises:
        ConversionError: no such file, an empty file, not a checkpoint, or one that wants to run something.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ConversionError(f"{path} is no regular file" if path.exists() else f"no such file: {path}")
        if path.stat().st_size == 0:
            raise ConversionError(f"{path} is empty (0 bytes): a download or a copy that did not finish?")
        content = _load(path)
    except ConversionError:
        raise
    except Exception as error:  # foreign bytes can fail foreign parsers in any way; none of it is a bug of this program
        raise _explained(path, error) from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path} holds a {type(content).__name__}; expected a dict of tensors")
    return content


def _load(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        if damage := zip_damage(path):
            raise ValueError(f"damaged: {damage}")
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    _check_nesting(archive.open(name))
        return _torch_load(path, mmap=True)  # of the optimiser's gigabytes nothing is read
    with path.open("rb") as file:
        start = file.read(9)
        if start.startswith(_ZIP):  # the list of contents, at its end, is not there
            raise ValueError("cut short: a download or a copy that did not finish?")
        if start[8:9] == b"{":  # 8 bytes of length, then a JSON header
            return _load_safetensors(path)
        file.seek(0)
        _check_nesting(file)
        file.seek(0)
        first = _NumpyUnpickler(file, encoding="latin1").load()
        if first != LEGACY_TORCH_MAGIC:
            return first
        for _ in range(4):  # version, system, content, keys of the storages
            _check_nesting(file)
    return _torch_load(path, mmap=False)


def _check_nesting(stream: IO[bytes]) -> None:
    """Refuse a pickle that nests so deep, or does so much, that reading it would end the process.

    (Python hashes nested tuples by recursion in C: 100,000 of them as a key of a dict are a segmentation fault.)
    Follows the pickle's stack with the depth of each object in place of the object.

    Raises:
        pickle.UnpicklingError: too deep or too long.
    """
    stack: list[int | None] = []  # None: a mark
    memo: dict[int, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name, before, after = opcode.name, opcode.stack_before, opcode.stack_after
        if name == "MEMOIZE" or name.endswith("PUT"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(None)
        elif before or after:
            inside: list[int] = []
            if pickletools.markobject in before:
                while (top := stack.pop()) is not None:
                    inside.append(top)
                before = before[: before.index(pickletools.markobject)]
            outer = [stack.pop() for _ in before]
            if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"):  # into the lowest one
                depth = max(outer[-1], 1 + max([*inside, *outer[:-1]], default=0))
            else:
                depth = 1 + max([*inside, *outer], default=0)
            stack.extend([depth] * len(after))
            if depth > _MAX_NESTING:
                raise pickle.UnpicklingError(f"objects are nested more than {_MAX_NESTING} deep")
        if count > _MAX_OPERATIONS:
            raise pickle.UnpicklingError(f"more than {_MAX_OPERATIONS:,} operations")


def _torch_load(path: Path, mmap: bool) -> Any:
    # What this process has allowed besides counts, but not under these names: a pretraining, for example, allows more
    # than may be asked for by anybody's file.
    others = torch.serialization.get_safe_globals()
    named = {item[1] if isinstance(item, tuple) else f"{item.__module__}.{item.__qualname__}": item for item in others}
    besides = [item for name, item in named.items() if name not in _GLOBALS]
    torch.serialization.clear_safe_globals()
    try:  # torch allows _codecs.encode and bytearray by itself
        with torch.serialization.safe_globals([*besides, *((value, name) for name, value in _GLOBALS.items())]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            notes = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"damaged safetensors file: {error}") from error
    return {"state_dict": tensors, **{key: _json_or_text(value) for key, value in notes.items()}}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _explained(path: Path, error: Exception) -> ConversionError:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return ConversionError(
            f"{path} was refused: it is a pickle that names {named.group(1)}, which no checkpoint of a known kind "
            "needs and which could run code. Nothing was executed. If you trust the file, save its state dict "
            "alone (torch.save(model.state_dict(), ...)) and convert that."
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConversionError(f"{path} cannot be read as a checkpoint (torch, safetensors or pickle): {reason}")
