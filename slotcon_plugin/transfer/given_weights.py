"""Weights that a run is to start from must still be there when its work dir has been made free."""

from __future__ import annotations

from pathlib import Path

from slotcon_plugin.errors import UserError


def refuse_weights_set_aside(work_dir: str | Path, overwrite: bool, weights: str | Path | None) -> None:
    """Call it before the work dir is claimed.

    Args:
        work_dir: of the run.
        overwrite: whether a used one is set aside.
        weights: file or work dir that the run starts from; what is no file here, such as an address, may be anywhere.

    Raises:
        UserError: the weights would be set aside with the work dir.
    """
    if not overwrite or weights is None or not Path(weights).exists():
        return
    folder, path = Path(work_dir).resolve(), Path(weights)
    if any(place.is_relative_to(folder) for place in (path.resolve(), path.parent.resolve() / path.name)):
        raise UserError(
            f"--overwrite would set {work_dir} aside, and the weights to start from, {weights}, lie in it: give "
            "another --work-dir (slotcon: --out; detectron2: OUTPUT_DIR)"
        )
