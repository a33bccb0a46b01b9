"""tools/benchmark_gpu.py: which rows are measured, and how they look."""

import runpy

import pytest


@pytest.fixture
def tool(repo):
    return runpy.run_path(str(repo / "tools/benchmark_gpu.py"))


def test_what_is_compiled_is_measured_last_and_on_a_gpu_alone(tool):
    assert [row[2:] for row in tool["_plan"](False)] == [(4, False), (4, False)]
    rows = list(tool["_plan"](True))
    assert [batch for method, _, batch, mode in rows if method == "VADeR" and not mode] == [64, 128, 256, 512]
    assert rows[8:] == [("SlotCon", "slotcon", 256, "reduce-overhead"), ("VADeR", "vader", 256, "reduce-overhead")]


def test_rows_say_what_was_measured_and_what_did_not_fit(tool):
    measured = {"images_per_s": 1000.4, "gib": 20.0, "of_matmul": 0.5}
    plain = {"plain_images_per_s": 500.2, "plain_gib": 40.0}
    rows = [
        {"method": "SlotCon", "batch": 64, "compile": False, **measured, **plain},
        {"method": "SlotCon", "batch": 128, "compile": False, **measured, "out_of_memory": True},
        {"method": "VADeR", "batch": 512, "compile": False, "out_of_memory": True},
        {"method": "VADeR", "batch": 256, "compile": "reduce-overhead", **measured},
    ]
    result = {"device": "A GPU", "torch": "2.11.0", "dtype": "bfloat16", "repeats": 10, "rows": rows}
    assert tool["table"](result).splitlines()[4:] == [
        "| SlotCon | 64 | 1000 | 500 | 2.00 | 50% | 20.0 | 40.0 | 0.50 |",
        "| SlotCon | 128 | 1000 | - | - | 50% | 20.0 | - | - |",
        "| VADeR | 512 | out of memory | - | - | - | - | - | - |",
        "| VADeR, CUDA graphs | 256 | 1000 | - | - | 50% | 20.0 | - | - |",
    ]
