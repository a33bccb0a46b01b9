"""Steps on a GPU: which rows are measured, what becomes of those that fail, and how they look."""

import json
import runpy
import sys
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from slotcon_plugin.errors import UserError
from slotcon_plugin.profiling.gpu_table import _plan, measure, table


def test_what_is_compiled_is_measured_last_and_on_a_gpu_alone():
    assert list(_plan(False)) == [("SlotCon", 4, False), ("VADeR", 4, False)]
    rows = list(_plan(True))
    assert [batch for method, batch, mode in rows if method == "VADeR" and not mode] == [64, 128, 256, 512]
    assert rows[8:] == [("SlotCon", 256, "reduce-overhead"), ("VADeR", 256, "reduce-overhead")]


def test_rows_say_what_was_measured_and_what_did_not_fit():
    measured = {"images_per_s": 1000.4, "gib": 20.0, "of_matmul": 0.5}
    plain = {"plain_images_per_s": 500.2, "plain_gib": 40.0}
    rows = [
        {"method": "SlotCon", "batch": 64, "compile": False, **measured, **plain},
        {"method": "SlotCon", "batch": 128, "compile": False, **measured, "out_of_memory": True},
        {"method": "SlotCon", "batch": 512, "compile": False, **measured, "failed": "no engine"},
        {"method": "VADeR", "batch": 512, "compile": False, "out_of_memory": True},
        {"method": "VADeR", "batch": 256, "compile": "reduce-overhead", **measured},
        {"method": "VADeR", "batch": 256, "compile": "reduce-overhead", "failed": "a | b"},
    ]
    result = {"device": "A GPU", "torch": "2.11.0", "dtype": "bfloat16", "repeats": 10, "rows": rows}
    assert table(result).splitlines()[4:] == [
        "| SlotCon | 64 | 1000 | 500 | 2.00 | 50% | 20.0 | 40.0 | 0.50 |",
        "| SlotCon | 128 | 1000 | out of memory | - | 50% | 20.0 | - | - |",
        "| SlotCon | 512 | 1000 | failed | - | 50% | 20.0 | - | - |",
        "| VADeR | 512 | out of memory | - | - | - | - | - | - |",
        "| VADeR, CUDA graphs | 256 | 1000 | - | - | 50% | 20.0 | - | - |",
        "| VADeR, CUDA graphs | 256 | failed | - | - | - | - | - | - |",
        "",
        "* SlotCon, batch 512: no engine",
        "* VADeR, CUDA graphs, batch 256: a | b",
    ]
    assert table({**result, "rows": rows[:1]}).splitlines()[-1].startswith("| SlotCon")


@pytest.fixture
def gpu(monkeypatch):
    """What is done on a GPU that is not there, in its order; ``errors`` are raised by the rows or calls they name."""
    gpu = SimpleNamespace(done=[], errors={})

    def note(what):
        gpu.done.append(what)
        if what in gpu.errors:
            raise gpu.errors[what]

    def profile_step(cfg, batch, *args, **options):
        note(f"{cfg.model.type} {batch}{' compiled' * bool(cfg.model.compile)}")
        return SimpleNamespace(images_per_s=1000.0, peak_gib=20.0, tflops=1.0, matmul_tflops=2.0)

    def plain_step(cfg, batch, *args):
        note(f"plain {cfg.model.type} {batch}")
        return batch / 500, 40.0

    monkeypatch.setattr("slotcon_plugin.profiling.gpu_table.profile_step", profile_step)
    monkeypatch.setattr("slotcon_plugin.profiling.gpu_table.plain_step", plain_step)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "A GPU")
    for call in ("cuda.synchronize", "compiler.reset", "cuda.empty_cache"):
        monkeypatch.setattr(f"torch.{call}", lambda call=call: note(call))
    monkeypatch.setattr("gc.collect", lambda: note("gc.collect"))
    return gpu


def test_what_a_row_held_is_given_back_before_the_next(gpu):
    (*_, result) = measure("cuda", "bfloat16", 1)
    freed = ["cuda.synchronize", "compiler.reset", "gc.collect", "cuda.empty_cache"]
    assert len(result["rows"]) == 10
    assert gpu.done[:11] == ["SlotCon 64", *freed, "plain SlotCon 64", *freed, "SlotCon 128"]
    assert gpu.done[-10:] == ["SlotCon 256 compiled", *freed, "VADeR 256 compiled", *freed]


def test_a_row_that_fails_leaves_the_others(gpu, repo, monkeypatch, tmp_path, capsys):
    out = tmp_path / "gpu.json"
    gpu.errors = {
        "SlotCon 512": torch.OutOfMemoryError("CUDA out of memory."),
        "VADeR 512": RuntimeError("GET was unable to find an engine\nto execute this computation"),
        "plain VADeR 256": RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        "SlotCon 256 compiled": AssertionError(),
    }
    monkeypatch.setattr("slotcon_plugin.arguments.add_device", lambda parser: parser.add_argument("--device"))
    monkeypatch.setattr(sys, "argv", ["tools/benchmark_gpu.py", "--device", "cuda", "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(repo / "tools/benchmark_gpu.py"), run_name="__main__")
    rows = {(row["method"], row["batch"], row["compile"]): row for row in json.loads(out.read_text())["rows"]}
    assert {key: row["failed"] for key, row in rows.items() if "failed" in row} == {
        ("VADeR", 512, False): "GET was unable to find an engine",
        ("VADeR", 256, False): "CUDNN_STATUS_ALLOC_FAILED",
        ("SlotCon", 256, "reduce-overhead"): "AssertionError",
    }
    assert sum("of_matmul" in row for row in rows.values()) == 10 - 3
    assert [key for key, row in rows.items() if row.get("out_of_memory")] == [("SlotCon", 512, False)]
    said = capsys.readouterr()
    assert end.value.code == 1
    assert "* VADeR, batch 512: GET was unable" in said.out
    assert "to execute this computation" in said.err and "error: 3 of 10 rows failed" in said.err


def test_a_gpu_that_is_lost_ends_it(gpu):
    results = measure("cuda", "bfloat16", 1)
    next(results)
    gpu.errors = dict.fromkeys(
        ["SlotCon 128", "cuda.synchronize"], RuntimeError("CUDA error: an illegal memory access")
    )
    (result,) = results
    lost = "CUDA error: an illegal memory access; the GPU could not be used any more"
    assert [row.get("failed") for row in result["rows"]] == [None, lost]


def test_a_run_that_was_cut_off_goes_on_with_what_it_lacks(gpu):
    gpu.errors = {"VADeR 64": RuntimeError("no engine"), "SlotCon 512": torch.OutOfMemoryError("CUDA out of memory.")}
    *_, former = islice(measure("cuda", "bfloat16", 1), 6)  # SlotCon's four, VADeR's first two
    former = json.loads(json.dumps(former))
    gpu.done, gpu.errors = [], {}
    first, *later = measure("cuda", "bfloat16", 1, former)
    assert [(row["method"], row["batch"]) for row in first["rows"]] == [
        *(("SlotCon", batch) for batch in (64, 128, 256, 512)),
        ("VADeR", 128),
    ]
    assert len(later) == 5 and len(later[-1]["rows"]) == 10
    assert [note for note in gpu.done if note.startswith(("SlotCon", "VADeR"))] == [
        *("VADeR 64", "VADeR 256", "VADeR 512"),
        *("SlotCon 256 compiled", "VADeR 256 compiled"),
    ]
    whole = later[-1]
    assert list(measure("cuda", "bfloat16", 1, whole)) == [whole]
    with pytest.raises(UserError, match="--resume: the file was measured with dtype bfloat16, this is float16"):
        next(measure("cuda", "float16", 1, whole))
