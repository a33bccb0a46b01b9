import pytest

from slotcon_plugin.engine.json_lines import append_json_line, read_json_lines, rewrite_json_lines


def test_what_is_appended_is_read_and_not_finite_becomes_null(tmp_path):
    path = tmp_path / "a.jsonl"
    append_json_line(path, {"iter": 1, "loss": 0.5, "dead": [2, 3]})
    append_json_line(path, {"iter": 2, "loss": float("nan")})
    assert read_json_lines(path) == [{"iter": 1, "loss": 0.5, "dead": [2, 3]}, {"iter": 2, "loss": None}]


def test_a_cut_last_line_is_left_out_and_gone_after_a_resume(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"iter": 1}\n{"iter": 2}\n{"iter": 3, "lo')
    assert [r["iter"] for r in read_json_lines(path)] == [1, 2]
    rewrite_json_lines(path, lambda r: r if r["iter"] <= 1 else None)
    append_json_line(path, {"iter": 2})
    assert path.read_text() == '{"iter": 1}\n{"iter": 2}\n'


@pytest.mark.parametrize("line", ["{cut", "[1, 2]", "7"])
def test_rubbish_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"iter": 1}}\n{line}\n{{"iter": 3}}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: expected a JSON object"):
        read_json_lines(path)


def test_a_missing_file_is_named_when_read_and_left_alone_when_kept(tmp_path):
    with pytest.raises(ValueError, match=r"b\.jsonl does not exist"):
        read_json_lines(tmp_path / "b.jsonl")
    rewrite_json_lines(tmp_path / "b.jsonl", lambda r: r)
    assert list(tmp_path.iterdir()) == []


def test_what_a_power_cut_leaves_does_not_block_a_resume(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"iter": 1}\n\0\0\0\0\n{"iter": 2}\n\xff\xfe{\n')
    with pytest.raises(ValueError, match="line 4"):
        read_json_lines(path)
    rewrite_json_lines(path, lambda r: {"iter": 2 * r["iter"]})
    assert path.read_text() == '{"iter": 2}\n{"iter": 4}\n'
    path.write_bytes(b'{"iter": 1}\n\0\0\0\0\n{"iter": 2}\n')
    assert [r["iter"] for r in read_json_lines(path)] == [1, 2]
