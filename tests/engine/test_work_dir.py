"""A work dir belongs to one running process and to one run; what resuming takes up is that run's."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from slotcon_plugin.checkpoints.runs import RUN, numbered_checkpoints
from slotcon_plugin.engine import claim_work_dir, lock
from slotcon_plugin.engine import work_dir as module
from slotcon_plugin.errors import UserError

HOLD = """
import multiprocessing, sys, time
from slotcon_plugin.engine import claim_work_dir
claim_work_dir(sys.argv[1], {})
worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
print(worker.pid, flush=True)
time.sleep(60)
"""
SLOTCON = {"method": "SlotCon", "seed": 0}


@pytest.fixture(autouse=True)
def _a_process_of_its_own(monkeypatch):
    """Each claim is that of a new process, which no launcher has started."""
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", *module._JOBS, *module._JOBS.values()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(lock, "_locks", {})


def save(path, run, at_top=False):
    stamp = {RUN: run} if at_top else {"meta": {RUN: run}}
    torch.save({"state_dict": {"w": torch.zeros(1000)}, **stamp}, path)


@pytest.mark.parametrize(
    ("launcher", "own"), [("pytorch", "RANK"), ("slurm", "SLURM_PROCID"), ("mpi", "OMPI_COMM_WORLD_RANK")]
)
def test_the_first_rank_is_known_by_the_launcher_and_nothing_else(tmp_path, monkeypatch, launcher, own):
    names = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    for name in names:
        monkeypatch.setenv(name, "1" if name == own else "0")
    assert claim_work_dir(tmp_path, {}, launcher=launcher) is None  # the first one tells it
    for name in names:
        monkeypatch.setenv(name, "0" if name == own else "1")
    assert claim_work_dir(tmp_path, {}, launcher=launcher)
    monkeypatch.setenv(own, "1")
    assert claim_work_dir(tmp_path, {}), "a single process, whatever the job's environment says"


def test_a_launcher_that_has_not_started_the_process_is_named(tmp_path):
    with pytest.raises(UserError, match="--launcher slurm: SLURM_PROCID is not set"):
        claim_work_dir(tmp_path / "run", {}, launcher="slurm")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def used(tmp_path):
    """A work dir with the checkpoints of a run: iter_1, iter_2 and iter_10."""
    folder = tmp_path / "run"
    claim = claim_work_dir(folder, SLOTCON)
    for number in (1, 2, 10):
        save(folder / f"iter_{number}.pth", claim.run)
    save(folder / "best_mIoU.pth", claim.run)
    return folder


def run_id(folder):
    return json.loads((folder / "run.json").read_text())["id"]


def test_the_second_run_is_told_of_the_first_and_a_killed_one_leaves_nothing(tmp_path, monkeypatch):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    worker = int(first.stdout.readline())  # like a data loader's: lives on when its parent is killed
    try:
        with pytest.raises(UserError, match=rf"in use by process {first.pid} on .*another work dir"):
            claim_work_dir(tmp_path, {})
        first.kill()
        first.wait()
        claim_work_dir(tmp_path, {})
        claim_work_dir(tmp_path, {})  # its own already
        assert f"process {os.getpid()} " in (tmp_path / ".in_use").read_text()
    finally:
        first.kill()
        os.kill(worker, signal.SIGKILL)


def test_a_new_folder_and_one_without_checkpoints_begin(tmp_path):
    first = claim_work_dir(tmp_path / "run", SLOTCON)
    assert first.checkpoint is None and first.run["identity"] == SLOTCON
    again = claim_work_dir(tmp_path / "run", {**SLOTCON, "seed": 1}, resume=True)
    assert again.checkpoint is None
    assert again.run["id"] == run_id(tmp_path / "run") != first.run["id"]


def test_a_used_folder_is_refused_without_a_word(used):
    before = sorted(used.iterdir())
    with pytest.raises(UserError, match=r"--resume goes on with it, --overwrite sets it aside"):
        claim_work_dir(used, SLOTCON)
    assert sorted(used.iterdir()) == before


def test_overwrite_sets_the_whole_folder_aside(used):
    former = run_id(used)
    claim = claim_work_dir(used, SLOTCON, overwrite=True)
    assert claim.checkpoint is None and claim.run["id"] == run_id(used) != former
    assert sorted(p.name for p in used.iterdir()) == [".in_use", "run.json"]
    aside = used.with_name("run.old1")
    assert run_id(aside) == former and (aside / "iter_10.pth").exists() and not (aside / ".in_use").exists()
    save(used / "iter_1.pth", claim.run)
    claim_work_dir(used, SLOTCON, overwrite=True)
    assert used.with_name("run.old2").is_dir()
    with pytest.raises(UserError, match="give one of them"):
        claim_work_dir(used, SLOTCON, resume=True, overwrite=True)


def test_a_folder_that_one_is_in_is_not_set_aside(used, monkeypatch):
    """Relative paths would lead into what was set aside."""
    (used / "inside").mkdir()
    for place in (used, used / "inside"):
        monkeypatch.chdir(place)
        with pytest.raises(UserError, match=r"would be set aside \(renamed\), and you are in it"):
            claim_work_dir(".." if place.name == "inside" else ".", SLOTCON, overwrite=True)
    assert (used / "iter_10.pth").exists() and not used.with_name("run.old1").exists()


def test_the_folder_of_a_living_run_is_not_set_aside(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    worker = int(first.stdout.readline())
    try:
        with pytest.raises(UserError, match=rf"in use by process {first.pid}"):
            lock.set_aside(tmp_path / "run")
        assert not (tmp_path / "run.old1").exists()
    finally:
        first.kill()
        first.wait()
        os.kill(worker, signal.SIGKILL)


def test_resume_takes_the_newest_whole_checkpoint(used, caplog):
    former = run_id(used)
    assert claim_work_dir(used, SLOTCON, resume=True).checkpoint == used / "iter_10.pth"
    flipped = bytearray((used / "iter_10.pth").read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF  # same size, one byte wrong
    (used / "iter_10.pth").write_bytes(flipped)
    (used / "iter_2.pth").write_bytes((used / "iter_2.pth").read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        claim = claim_work_dir(used, SLOTCON, resume=True)
    assert claim.checkpoint == used / "iter_1.pth" and claim.run["id"] == run_id(used) == former


def test_detectron2s_checkpoints_are_known_too(tmp_path):
    claim = claim_work_dir(tmp_path, {"task": "d2"})
    for name in ("model_0000009.pth", "model_0000019.pth"):
        save(tmp_path / name, claim.run, at_top=True)
    assert claim_work_dir(tmp_path, {"task": "d2"}, resume=True).checkpoint.name == "model_0000019.pth"
    save(tmp_path / "model_final.pth", claim.run, at_top=True)
    assert claim_work_dir(tmp_path, {"task": "d2"}, resume=True).checkpoint.name == "model_final.pth"


def test_what_a_stop_left_beside_checkpoints_by_the_epoch_is_ordered_by_its_content(tmp_path):
    claim = claim_work_dir(tmp_path, SLOTCON)
    left = {"epoch_9": (9, 90), "iter_95": (9, 95), "epoch_10": (10, 100), "epoch_11": (11, 110)}
    left["iter_420"] = (4, 420)  # of a tenth of the batch: another count of iterations, the same of epochs
    for name, (epoch, iteration) in left.items():
        meta = {RUN: claim.run, "epoch": epoch, "iter": iteration}
        torch.save({"state_dict": {}, "meta": meta}, tmp_path / f"{name}.pth")
    order = ["epoch_11", "epoch_10", "iter_95", "epoch_9", "iter_420"]
    assert [path.stem for path in numbered_checkpoints(tmp_path)] == order
    assert claim_work_dir(tmp_path, SLOTCON, resume=True).checkpoint == tmp_path / "epoch_11.pth"
    (tmp_path / "epoch_11.pth").write_bytes((tmp_path / "epoch_11.pth").read_bytes()[:-100])
    (tmp_path / "epoch_10.pth").unlink()
    assert [path.stem for path in numbered_checkpoints(tmp_path)] == ["epoch_11", "iter_95", "epoch_9", "iter_420"]
    assert claim_work_dir(tmp_path, SLOTCON, resume=True).checkpoint == tmp_path / "iter_95.pth"


def test_checkpoints_of_another_run_are_never_taken(used):
    save(used / "iter_20.pth", {"id": "another", "identity": SLOTCON})
    torch.save({"state_dict": {}, "meta": {}}, used / "iter_30.pth")
    assert claim_work_dir(used, SLOTCON, resume=True).checkpoint == used / "iter_10.pth"


def test_when_nothing_is_whole_the_run_stops_and_all_stays(used):
    for path in used.glob("iter_*.pth"):
        path.write_bytes(path.read_bytes()[:-1000])
    save(used / "iter_30.pth", {"id": "another", "identity": SLOTCON})
    before = {path: path.read_bytes() for path in used.iterdir()}
    with pytest.raises(
        UserError,
        match=r"damaged or cut short: iter_10.pth, iter_2.pth, iter_1.pth; written by another run: iter_30.pth. "
        "Nothing was changed",
    ):
        claim_work_dir(used, SLOTCON, resume=True)
    assert {path: path.read_bytes() for path in used.iterdir() if path.name != ".in_use"} == {
        path: content for path, content in before.items() if path.name != ".in_use"
    }


def test_a_run_keeps_its_seed_and_method(used):
    with pytest.raises(UserError, match="has seed 0, and 1 is asked for"):
        claim_work_dir(used, {**SLOTCON, "seed": 1}, resume=True)
    claim = claim_work_dir(used, {"method": "SlotCon", "seed": None, "backbone": "abc"}, resume=True)
    assert claim.run["identity"] == {**SLOTCON, "backbone": "abc"}  # what is not known is the run's own


def test_going_back_leaves_the_later_checkpoints_behind(used):
    former = run_id(used)
    claim = claim_work_dir(used, SLOTCON, resume=str(used / "iter_2.pth"))
    assert claim.checkpoint == used / "iter_2.pth" and claim.run["id"] == run_id(used) != former
    # killed before it wrote anything: again from there, and not from iter_10 of the course that was left
    again = claim_work_dir(used, SLOTCON, resume=True)
    assert again == claim
    save(used / "iter_3.pth", claim.run)
    assert claim_work_dir(used, SLOTCON, resume=True).checkpoint == used / "iter_3.pth"


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree], ids=["moved", "copied"])
def test_a_run_that_went_back_goes_on_in_a_folder_of_another_name(used, move):
    claim = claim_work_dir(used, SLOTCON, resume=used / "iter_2.pth")
    other = used.with_name("other")
    move(used, other)
    again = claim_work_dir(other, SLOTCON, resume=True)
    assert again.checkpoint == other / "iter_2.pth" and again.run == claim.run


def test_what_a_run_went_on_from_elsewhere_stays_where_it_is(used, tmp_path):
    claim = claim_work_dir(tmp_path / "new", SLOTCON, resume=used / "iter_2.pth")
    (tmp_path / "new").rename(tmp_path / "newer")
    again = claim_work_dir(tmp_path / "newer", SLOTCON, resume=True)
    assert again.checkpoint == used / "iter_2.pth" and again.run == claim.run


def test_a_named_checkpoint_is_checked(used, tmp_path):
    with pytest.raises(UserError, match=r"iter_4\.pth, does not exist"):
        claim_work_dir(used, SLOTCON, resume=used / "iter_4.pth")
    save(tmp_path / "elsewhere.pth", {"id": "another", "identity": SLOTCON})
    with pytest.raises(UserError, match="holds the checkpoints of another run"):
        claim_work_dir(used, SLOTCON, resume=tmp_path / "elsewhere.pth")
    assert claim_work_dir(tmp_path / "new", SLOTCON, resume=used / "iter_2.pth").run["id"] != run_id(used)
    (used / "iter_2.pth").write_bytes((used / "iter_2.pth").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"iter_2\.pth, is damaged or cut short: "):
        claim_work_dir(used, SLOTCON, resume=used / "iter_2.pth")


RESTARTS = [("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID"), ("SLURM_RESTART_COUNT", "SLURM_JOB_ID")]


@pytest.mark.parametrize(("variable", "job"), RESTARTS)
def test_a_restarted_process_resumes_by_itself(used, monkeypatch, variable, job):
    monkeypatch.setenv(variable, "0")
    monkeypatch.setenv(job, "17")
    with pytest.raises(UserError):
        claim_work_dir(used, SLOTCON)
    gone_back = claim_work_dir(used, SLOTCON, resume=used / "iter_2.pth")
    save(used / "iter_3.pth", gone_back.run)
    monkeypatch.setenv(variable, "1")
    for words in ({}, {"overwrite": True}, {"resume": str(used / "iter_2.pth")}):
        assert claim_work_dir(used, SLOTCON, **words).checkpoint == used / "iter_3.pth"
    assert claim_work_dir(used, SLOTCON, resume=used / "iter_1.pth").checkpoint == used / "iter_1.pth"


@pytest.mark.parametrize(("variable", "job"), RESTARTS)
def test_a_restarted_process_takes_no_run_of_another_job(used, monkeypatch, variable, job):
    """The variables are the job's: a command that it starts later finds them, too."""
    claim_work_dir(used, SLOTCON, resume=True)
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv(job, "17")
    with pytest.raises(UserError, match="--overwrite sets it aside"):
        claim_work_dir(used, SLOTCON)
    new = claim_work_dir(used, SLOTCON, overwrite=True)
    assert new.checkpoint is None and (used.with_name("run.old1") / "iter_10.pth").exists()
    save(used / "iter_1.pth", new.run)
    assert claim_work_dir(used, SLOTCON, overwrite=True).checkpoint == used / "iter_1.pth"  # its own by now
    monkeypatch.setenv(job, "18")
    assert claim_work_dir(used, SLOTCON, resume=True).run == new.run
    assert claim_work_dir(used, SLOTCON, overwrite=True).checkpoint == used / "iter_1.pth"


def test_torchruns_without_an_id_are_told_apart(used, monkeypatch):
    """Each of them says that its id is "none"."""

    def be(folder, attempt):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", folder and f"{folder}/none_x/attempt_{attempt}/0/error.json")

    be("/tmp/torchelastic_1", 0)
    claim_work_dir(used, SLOTCON, resume=True)
    for other in ("/tmp/torchelastic_2", ""):
        be(other, 1)
        with pytest.raises(UserError, match="--overwrite sets it aside"):
            claim_work_dir(used, SLOTCON)
    be("/tmp/torchelastic_1", 1)
    assert claim_work_dir(used, SLOTCON).checkpoint == used / "iter_10.pth"


def test_what_killed_writers_left_is_removed(used):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (used / "pictures").mkdir()
    rubbish = [used / f".part-{dead.pid}-iter_11.pth", used / "pictures" / f".part-{dead.pid}-a.png"]
    alive = used / f".part-{os.getppid()}-table.md"
    for path in (*rubbish, alive):
        path.touch()
    rubbish.append(used / f".part-{dead.pid}-for_timm")  # of a folder that was being written
    rubbish[-1].mkdir()
    (rubbish[-1] / "config.json").touch()
    claim_work_dir(used, SLOTCON, resume=True)
    assert alive.exists() and not any(path.exists() for path in rubbish)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"the work dir .*file/run cannot be used"):
        claim_work_dir(tmp_path / "file" / "run", SLOTCON)
