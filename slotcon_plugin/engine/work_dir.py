"""One work dir, one run: who may write there, and from which checkpoint the run goes on.

The one mechanism for pretraining and for transfer runs of every framework:

    claim = claim_work_dir(work_dir, {"method": "SlotCon", "seed": 0}, resume=args.resume, overwrite=args.overwrite)
    ...                          # start the process group
    claim = shared(claim)        # every rank learns what the first one has decided
    ...                          # go on from claim.checkpoint, or begin if it is None
    checkpoint[RUN] = claim.run  # in every checkpoint written, at the top or (mmengine) in checkpoint["meta"]

A run has an id, drawn when it begins, which stands in ``run.json`` of its work dir and in its checkpoints. Resuming
takes checkpoints of this id only, so that what another run has left in the folder is never mistaken for its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.dist import broadcast_object_list
from mmengine.logging import print_log

from slotcon_plugin.checkpoints.runs import (
    CONTINUES,
    RUN_FILE,
    newest_whole,
    numbered_checkpoints,
    run_of,
    run_record,
    start_of,
)
from slotcon_plugin.engine.checkpoint import open_checkpoint
from slotcon_plugin.engine.lock import lock_work_dir, put_back, set_aside
from slotcon_plugin.errors import UserError
from slotcon_plugin.files import PART_PREFIX, write_json, zip_damage

_TORCHRUN = "TORCHELASTIC_RUN_ID"
_JOBS = {"TORCHELASTIC_RESTART_COUNT": _TORCHRUN, "SLURM_RESTART_COUNT": "SLURM_JOB_ID"}
_RANKS = {"pytorch": "RANK", "slurm": "SLURM_PROCID", "mpi": "OMPI_COMM_WORLD_RANK"}


class Claim(NamedTuple):
    """What :func:`claim_work_dir` has decided.

    Attributes:
        run: what checkpoints of this run carry under :data:`RUN`: its ``id`` and ``identity``.
        checkpoint: where to go on; None = begin.
        aside: where a used folder was put, see
            :func:`~slotcon_plugin.engine.lock.put_back_if_refused`; None = there was none.
    """

    run: dict[str, Any]
    checkpoint: Path | None
    aside: Path | None = None


def claim_work_dir(
    work_dir: str | Path,
    identity: Mapping[str, str | int | None],
    resume: bool | str | Path = False,
    overwrite: bool = False,
    launcher: str | None = None,
) -> Claim | None:
    """Make a folder this process's own until it ends, however it ends, and decide where the run begins.

    A folder without checkpoints is free. One with checkpoints needs a word: ``resume=True`` goes on from the newest
    whole one of the run, a path from that one, ``overwrite`` renames the folder to ``NAME.old1`` and begins in a new
    one. A process that its launcher has started again (torchrun's ``--max-restarts``, Slurm's requeue) resumes by
    itself what the same job has begun. Going on from a named checkpoint is a new course, with an id of its own, so that
    later checkpoints of the course that was left are not taken up again.

    What killed writers have left half written is removed.

    Args:
        work_dir: the folder; made if need be.
        identity: what makes it this run and no other, for instance method and seed; compared when resuming, except
            what is None (not known).
        resume: True, or a checkpoint's path.
        overwrite: set a used folder aside.
        launcher: mmengine's name of what has started this process; by it the first rank is known.

    Returns:
        The decision; None in a launcher's processes other than the first, see :func:`shared`.

    Raises:
        UserError: a process that is still running has the folder; it is used and neither ``resume`` nor ``overwrite``
            was asked for; there are checkpoints, but none that is whole and of this run; the identities differ; the
            folder cannot be written to.
    """
    if launcher in _RANKS and _RANKS[launcher] not in os.environ:
        raise UserError(
            f"--launcher {launcher}: {_RANKS[launcher]} is not set: {launcher} has not started this process. Leave the "
            "option out, or see tools/dist_train.sh and tools/slurm_train.sh"
        )
    if int(os.environ.get(_RANKS.get(launcher, "")) or 0):
        return None
    if resume and overwrite:
        raise UserError("--resume goes on with the run in the work dir, --overwrite sets it aside: give one of them")
    folder, aside = Path(work_dir).resolve(), None
    try:
        lock_work_dir(folder)
        for part in folder.rglob(f"{PART_PREFIX}*"):
            if not _is_being_written(part):
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
        record = run_record(folder)
        named = Path(resume).resolve() if isinstance(resume, (str, Path)) else None
        if started_again(folder) and named in (None, start_of(folder, record)):
            resume, overwrite = True, False
        if resume:
            former, checkpoint = _newest(folder, record) if resume is True else _named(folder, record, Path(resume))
            _compare(folder, former.get("identity", {}), identity)
        else:
            former, checkpoint = {}, None
            if numbered_checkpoints(folder):
                if not overwrite:
                    raise UserError(
                        f"the work dir {work_dir} holds the checkpoints of a run. --resume goes on with it, "
                        "--overwrite sets it aside and begins anew; or name another folder"
                    )
                aside = set_aside(folder)
        known = {name: value for name, value in identity.items() if value is not None}
        run = {
            "id": former.get("id") or uuid.uuid4().hex[:12],
            "identity": {**dict(identity), **former.get("identity", {}), **known},
        }
        if record.get("id") != run["id"]:
            record = {CONTINUES: checkpoint and _seen_from(folder, checkpoint)}
        now = {**record, **run, "job": _job()}
        if now != record:
            write_json(folder / RUN_FILE, now)
    except OSError as error:
        if aside:
            put_back(folder, aside)
        raise UserError(f"the work dir {work_dir} cannot be used: {error}") from error
    return Claim(run, checkpoint, aside)


def shared(claim: Claim | None) -> Claim:
    """The first rank's claim, on every rank; call it when the process group has been started."""
    box = [claim]
    broadcast_object_list(box)
    return box[0]


def _newest(folder: Path, record: dict[str, Any]) -> tuple[dict[str, Any], Path | None]:
    """The run in a folder and its newest whole checkpoint; nothing of either if there are no checkpoints at all."""

    def counts(path: Path) -> bool:
        return not record or run_of(open_checkpoint(path)).get("id") == record["id"]

    checkpoint, damaged, foreign = newest_whole(folder, record, counts)
    if checkpoint and checkpoint == start_of(folder, record):
        return record, checkpoint
    if checkpoint:
        if foreign:
            print_log(f"Ignored, because another run wrote them: {', '.join(foreign)}", "current", logging.WARNING)
        return run_of(open_checkpoint(checkpoint)), checkpoint
    if damaged or foreign:
        raise UserError(
            f"nothing to resume from in {folder}: "
            + "; ".join(
                f"{what}: {', '.join(names)}"
                for what, names in (("damaged or cut short", damaged), ("written by another run", foreign))
                if names
            )
            + ". Nothing was changed. --resume FILE takes a checkpoint by its name, --overwrite sets the folder aside "
            "and begins anew"
        )
    print_log(f"No checkpoint to resume from in {folder}; starting from the beginning", "current")
    return {}, None


def _seen_from(folder: Path, checkpoint: Path) -> str:
    """Relative where it lies in the folder, which may be moved; see `checkpoints.runs.start_of`."""
    checkpoint = checkpoint.resolve()
    return str(checkpoint.relative_to(folder) if checkpoint.is_relative_to(folder) else checkpoint)


def _named(folder: Path, record: dict[str, Any], path: Path) -> tuple[dict[str, Any], Path]:
    """The run that wrote a checkpoint, to be gone on with under a new id."""
    if not path.is_file():
        raise UserError(f"the checkpoint to resume from, {path}, does not exist")
    if damage := zip_damage(path):
        raise UserError(f"the checkpoint to resume from, {path}, is damaged or cut short: {damage}")
    run = run_of(open_checkpoint(path))
    if path.resolve().parent != folder and numbered_checkpoints(folder) and run.get("id") != record.get("id", ""):
        raise UserError(
            f"the work dir {folder} holds the checkpoints of another run than {path}. Give this one another work dir"
        )
    return {**run, "id": None}, path


def _compare(folder: Path, former: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        if None not in (value, former.get(name)) and former[name] != value:
            raise UserError(
                f"cannot resume: the run in {folder} has {name} {former[name]}, and {value} is asked for. Resume it "
                "with what it was started with, or give the new run another work dir"
            )


def started_again(folder: str | Path) -> bool:
    """Whether the launcher has started the command that has this work dir before, in the same job.

    Counts of restarts are the job's, and not the command's: a run that another job has left in the folder is not its.
    """
    known, job = run_record(Path(folder)).get("job", {}), _job()
    restarted = {name for count, name in _JOBS.items() if int(os.environ.get(count) or 0) > 0}
    return any(known.get(name) == job[name] for name in restarted & job.keys())


def _job() -> dict[str, str]:
    """The job that this process belongs to, by the variables of its launchers."""
    job = {name: os.environ[name] for name in _JOBS.values() if name in os.environ}
    if job.get(_TORCHRUN) == "none":  # every job's without --rdzv-id; but each torchrun has a folder of its own
        del job[_TORCHRUN]
        if error_file := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # FOLDER/attempt_1/0/error.json
            job[_TORCHRUN] = str(Path(error_file).parents[2])
    return job


def _is_being_written(part: Path) -> bool:
    """Whether the process that a partial file's name gives is alive on this machine."""
    try:
        os.kill(int(part.name.removeprefix(PART_PREFIX).split("-")[0]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
