"""Read, map, prove, write: the one call behind the conversion tools."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import slotcon_plugin
from slotcon_plugin.checkpoints.runs import locate
from slotcon_plugin.convert.canonical import CanonicalBackbone
from slotcon_plugin.convert.decoders import DECODERS, halved
from slotcon_plugin.convert.network import Network, network_by_name
from slotcon_plugin.convert.read import read_checkpoint
from slotcon_plugin.convert.verify import prove
from slotcon_plugin.convert.writers import TARGETS
from slotcon_plugin.convert.writers.base import Target
from slotcon_plugin.errors import ConversionError
from slotcon_plugin.files import replacing

_OWN_FOLDER = {"config.json", "model.safetensors"}  # all that a folder for timm holds


def convert(
    src: str | Path,
    out: str | Path,
    target: str,
    branch: str | None = None,
    kind: str | None = None,
    config: str | None = None,
    overwrite: bool = False,
    fpn: bool = True,
    prefix: str | None = None,
    declared: Mapping[str, Any] | None = None,
    network: Network | str | None = None,
) -> dict[str, Any]:
    """Convert a checkpoint's backbone for another framework, having proved that it arrives intact.

    Args:
        src: a checkpoint of any known kind.
        out: file to write; appears complete or not at all.
        target: a key of :data:`~slotcon_plugin.convert.writers.TARGETS`.
        network: that ``src`` holds, or its name; None = what this project's file declares, else a plain ResNet.
        branch, kind, prefix, declared: see :func:`~slotcon_plugin.convert.read.read_checkpoint`.
        fpn: whether a decoder goes with the backbone. Plain loaders (timm's ``checkpoint_path``)
            take no file with one.
        overwrite: whether ``out`` may exist; it may never be ``src`` itself, a link, a device, or a folder with
            anything in it but what this function writes there.
        config: transfer config whose backbone the proof builds; None = the recipe's settings. A feature pyramid that
            does not fit the config's is left out whole, and the metadata say why.

    Returns:
        The metadata written with the weights, see :mod:`slotcon_plugin.convert.metadata`.

    Raises:
        ConversionError: unreadable or unknown source, unfit suffix, or a proof that failed; nothing is written.
    """
    if target not in TARGETS:
        raise ConversionError(f"unknown target {target!r}; known: {sorted(TARGETS)}")
    row = TARGETS[target]
    out = Path(out)
    if out.suffix not in row.suffixes:
        raise ConversionError(f"{target} goes by the file's suffix: OUT must end in {row.suffixes}, got {out.name!r}")
    check_out(out, locate(src), overwrite)
    if config and not Path(config).is_file():
        raise ConversionError(f"there is no transfer config {config} to prove the conversion with")
    if isinstance(network, str):
        network = network_by_name(network)
    canonical = read_checkpoint(src, branch, kind, prefix, declared, network)
    for decoder in [name for name in DECODERS if name in canonical.decoders]:
        if misfit := _misfit(canonical, decoder, row, config) if fpn else "not asked for":
            meta = {**canonical.meta, decoder: False, f"{decoder}_left_out": misfit}
            rest = {name: part for name, part in canonical.decoders.items() if name != decoder}
            canonical = replace(canonical, decoders=rest, meta=meta)
    library = canonical.network.library
    if library not in row.names:
        raise ConversionError(f"{target} has no {canonical.network}: tools/convert_to_timm.py writes timm's networks")
    tensors = {row.table_of(name, canonical).to_target(name): value for name, value in canonical.weights.items()}
    proof = prove(canonical, tensors, row, config)
    meta = {**canonical.meta, "target": target, "proof": proof, "tool_version": slotcon_plugin.__version__}
    write(out, lambda path: row.save(tensors, meta, path))
    return meta


def _misfit(canonical: CanonicalBackbone, name: str, target: Target, config: str | None) -> str | None:
    """Why a decoder of some kind cannot go into the config's; None if it can.

    Frameworks load what matches and skip the rest: under norm layers, convolutions without their biases.
    """
    kind = DECODERS[name]
    if name not in target.decoders:
        return f"{target.name} takes none"
    if kind.on and kind.on not in canonical.decoders:
        return f"the {DECODERS[kind.on].title} that it stands on is left out"
    network, decoder = canonical.network, target.decoders[name]
    own = kind.form(canonical.decoders[name], network.channels)
    try:
        theirs = decoder.of_config(config, len(network.channels)) if config else own
    except ImportError:
        return None  # the proof will say what is not installed
    if isinstance(theirs, str):
        return theirs
    if own != theirs:
        return f"the checkpoint's has {kind.words.format(*own)}, the config's {kind.words.format(*theirs)}"
    if kind.fits and not kind.fits(own, network.map_sizes):
        words = kind.words.format(*own)
        return f"it does not fit the strides of {network} (pretrained dilated, or at another output stride?): {words}"
    if decoder.halved and not halved(network.map_sizes):
        sides = ", ".join(f"{height} x {width}" for height, width in network.map_sizes)
        return f"{target.name}'s wants each stage map half as large as the one before, those of {network} are {sides}"
    return None


def check_out(out: Path, src: str | Path, overwrite: bool) -> None:
    """Refuse to write where something would be lost.

    Raises:
        ConversionError: ``out`` is the source (by whatever name), a link, a device, a folder that holds more than a
            conversion writes, or it exists and ``overwrite`` is not set.
    """
    if not out.name:
        raise ConversionError(f"OUT {out} is the folder that you are in: give the name of a file or of a folder")
    try:
        if not (out.exists() or out.is_symlink()):
            return
        if os.path.exists(src) and out.exists() and (out.samefile(src) or out.samefile(Path(src).parent)):
            raise ConversionError(f"OUT {out} is the checkpoint that is to be read, or its folder: give another name")
        if out.is_symlink() or not (out.is_file() or (out / "config.json").is_file()):  # a folder of timm's
            raise ConversionError(f"OUT {out} is a link, a folder or a device: give the name of a file")
        if out.is_dir() and (others := sorted(entry.name for entry in out.iterdir() if entry.name not in _OWN_FOLDER)):
            raise ConversionError(
                f"OUT {out} is a folder that holds {', '.join(others[:4])}{', ...' if others[4:] else ''} beside "
                f"{' and '.join(sorted(_OWN_FOLDER))}, which would be lost: give another name, or move that away"
            )
    except OSError as error:
        raise ConversionError(f"cannot write {out}: {error}") from error
    if not overwrite:
        raise ConversionError(f"OUT {out} exists: give another name, or --overwrite (overwrite=True) to replace it")


def write(out: Path, save: Callable[[Path], None]) -> None:
    """Have ``save`` write a file that appears whole or not at all.

    Raises:
        ConversionError: the folder cannot be written to, or the disk is full.
    """
    try:
        with replacing(out) as partial:
            save(partial)
    except (OSError, RuntimeError) as error:
        told = isinstance(error, RuntimeError) and isinstance(error.__context__, OSError)
        reason = error.__context__ if told else error  # torch's zip writer fails once more when it closes the file
        raise ConversionError(f"cannot write {out}: {reason}") from error
