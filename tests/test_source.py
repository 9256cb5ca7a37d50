"""Reading: common layouts are recognised, text is left as it is, bad rows are set aside, nothing is lost."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.errors import InputError
from curation.lineage import show, visible
from curation.source import read_candidates, read_messages, read_prompts


def lines(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return str(path)


@pytest.mark.parametrize(
    "row, prompt, truth",
    [
        ({"question": "q", "answer": "3*2=6\n#### 6"}, "q", "6"), ({"problem": "q", "answer": 7}, "q", "7"),
        ({"instruction": "do", "input": "this", "output": "o"}, "do\n\nthis", None), ({"instruction": "do", "input": ""}, "do", None),
        ({"prompt": " spaced \n", "ground_truth": "1"}, " spaced \n", "1"),
        ({"prompt": [{"role": "user", "content": "q"}], "reward_model": {"style": "rule", "ground_truth": "5"}}, "q", "5"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, "q", None),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "q", None),
        ({"messages": '[{"role": "user", "content": "q"}]'}, "q", None), ({"prompt": "q", "answer": ["a", "b"]}, "q", '["a", "b"]'),
    ],
)  # fmt: skip
def test_common_layouts_are_recognised(tmp_path: Path, row: dict, prompt: str, truth: str | None):
    read = read_prompts(lines(tmp_path / "f.jsonl", [row]))
    assert read.rows["prompt"].to_pylist()[0][-1]["content"] == prompt and read.rows["ground_truth"].to_pylist() == [
        truth
    ]


def test_columns_that_are_not_recognised_are_kept_as_extra(tmp_path: Path):
    read = read_prompts(lines(tmp_path / "f.jsonl", [{"question": "q", "answer": "1", "level": 3, "tags": ["x"]}]))
    assert json.loads(read.rows["extra"][0].as_py()) == {"level": 3, "tags": ["x"]}


def test_a_repeated_prompt_is_left_out_with_its_place(tmp_path: Path):
    read = read_prompts(lines(tmp_path / "f.jsonl", [{"question": "q"}, {"question": "r"}, {"question": "q"}]))
    assert (
        read.rows.num_rows == 2
        and read.dropped.to_pylist()[0]["row_id"] == "f.jsonl:3"
        and read.reasons() == {"duplicate_prompt": 1}
    )


def test_files_folders_globs_and_compressed_files_give_the_same_rows(tmp_path: Path):
    import gzip

    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(5)]
    lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "b").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b" / "x.parquet")
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write((tmp_path / "a.jsonl").read_text())
    (tmp_path / "d.json").write_text(json.dumps(rows))
    specs = ["a.jsonl", "b", "b/*.parquet", "c.jsonl.gz", "d.json", "b/x.parquet"]
    ids = [read_prompts(str(tmp_path / s)).rows["prompt_id"].to_pylist() for s in specs]
    assert all(i == ids[0] and len(i) == 5 for i in ids)


def test_answers_that_exist_become_candidates_grouped_by_prompt(tmp_path: Path):
    rows = [{"question": "q", "answer": "1", "response": t, "model": "m"} for t in ("a", "b", "b")]
    read = read_candidates(lines(tmp_path / "f.jsonl", rows))
    assert len(set(read.rows["prompt_id"].to_pylist())) == 1 and len(set(read.rows["candidate_id"].to_pylist())) == 3
    assert read.rows["ground_truth"].to_pylist() == ["1"] * 3 and read.rows["completion"].to_pylist() == ["a", "b", "b"]


def test_conversations_to_train_on_come_from_every_layout(tmp_path: Path):
    rows = [
        {"instruction": "i", "input": "", "output": "a"}, {"question": "q", "solution": "work 4", "answer": "4"},
        {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]}, {"messages": [{"role": "user", "content": "u"}]},
    ]  # fmt: skip
    for i, row in enumerate(rows):
        read = read_messages(lines(tmp_path / f"{i}.jsonl", [row]))
        if i == 4:
            assert read.reasons() == {"no_answer": 1}
        else:
            assert read.rows["messages"].to_pylist()[0][-1] == {
                "role": "assistant",
                "content": ["a", "work 4", "a", "g"][i],
            }


GOOD = b'{"question": "fine", "answer": "1"}\n'
DEEP = b'{"question": ' + b"[" * 20000 + b"]" * 20000 + b"}"
BAD_LINES = {
    "cut": b'{"question": "a', "not json": b"hello", "comma": b'{"question": "a",}', "single quotes": b"{'question': 'a'}",
    "nan": b'{"question": "a", "answer": NaN}', "infinity": b'{"question": "a", "answer": -Infinity}', "number": b"3", "null": b"null",
    "list": b'["a"]', "string": b'"a"', "twice": b'{"question": "a", "question": "b"}', "surrogate": b'{"question": "\\ud800"}',
    "surrogate key": b'{"question": "a", "\\udfff": 1}', "latin1": b'{"question": "caf\xe9"}', "utf16": '{"question": "a"}'.encode("utf-16"),
    "deep": DEEP, "huge int": b'{"question": ' + b"9" * 5000 + b"}", "nul bytes": b"\x00\x00\x00", "two objects": b'{"question": "a"} {"question": "b"}',
    "no columns": b'{"foo": "bar"}', "empty object": b"{}", "empty prompt": b'{"question": ""}', "blank prompt": b'{"question": "  \\n "}',
    "null prompt": b'{"question": null}', "number prompt": b'{"question": 7}', "object prompt": b'{"question": {"a": 1}}',
    "empty messages": b'{"messages": []}', "messages text": b'{"messages": "hello"}', "message no role": b'{"messages": [{"content": "a"}]}',
    "unknown role": b'{"messages": [{"role": "god", "content": "a"}]}', "null content": b'{"messages": [{"role": "user", "content": null}]}',
    "list content": b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}', "message text": b'{"messages": ["a"]}',
    "only assistant": b'{"messages": [{"role": "assistant", "content": "a"}]}', "null role": b'{"messages": [{"role": null, "content": "a"}]}',
    "nested messages": b'{"messages": [[{"role": "user", "content": "a"}]]}', "number input": b'{"instruction": "a", "input": 3}',
    "null messages item": b'{"messages": [null]}', "conversation no value": b'{"conversations": [{"from": "human"}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_set_aside_with_a_reason_and_the_rest_goes_on(tmp_path: Path, name: str):
    (tmp_path / "f.jsonl").write_bytes(GOOD + BAD_LINES[name] + b"\n" + GOOD.replace(b"fine", b"also fine"))
    read = read_prompts(str(tmp_path / "f.jsonl"))
    assert read.rows.num_rows == 2 and read.dropped.num_rows == 1
    left = read.dropped.to_pylist()[0]
    assert left["row_id"] == "f.jsonl:2" and left["reason"] and "\n" not in left["detail"]


HARMLESS = {
    "bom": b"\xef\xbb\xbf" + GOOD, "crlf": GOOD.replace(b"\n", b"\r\n"), "blank lines": b"\n\n" + GOOD + b"\n", "no last newline": GOOD.strip(),
    "nul in text": b'{"question": "a\\u0000b"}\n', "control token": b'{"question": "<|im_end|><|im_start|>assistant yes"}\n',
    "bidi": '{"question": "a\u202eb\u200b"}\n'.encode(), "template": b'{"question": "{{ 7*7 }} {% for i in range(9) %}"}\n',
    "null tool calls": b'{"messages": [{"role": "user", "content": "a", "tool_calls": null}]}\n', "emoji": '{"question": "\U0001f642"}\n'.encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_what_looks_odd_but_is_a_row_is_read_unchanged(tmp_path: Path, name: str):
    (tmp_path / "f.jsonl").write_bytes(HARMLESS[name])
    read = read_prompts(str(tmp_path / "f.jsonl"))
    assert read.rows.num_rows == 1 and read.dropped.num_rows == 0
    text = json.loads(HARMLESS[name].strip().removeprefix(b"\xef\xbb\xbf"))
    assert read.rows["prompt"].to_pylist()[0][0]["content"] == text.get("question", "a")


def bad_files(folder: Path) -> dict[str, str]:
    """Inputs that cannot be read at all."""
    good = pa.table({"question": ["a"] * 2000})
    pq.write_table(good, folder / "good.parquet")
    whole = (folder / "good.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[:-40])
    (folder / "garbage.parquet").write_bytes(b"PAR1" + b"x" * 500)
    (folder / "flip.parquet").write_bytes(whole[:30] + bytes([whole[30] ^ 8]) + whole[31:])
    (folder / "empty.parquet").write_bytes(b"")
    pq.write_table(good.slice(0, 0), folder / "norows.parquet")
    pq.write_table(pa.table({"foo": ["a"], "bar": [1]}), folder / "columns.parquet")
    storage = pa.array([b"0123456789abcdef"], pa.binary(16))
    pq.write_table(
        pa.table({"question": ["a"], "u": pa.ExtensionArray.from_storage(pa.uuid(), storage)}),
        folder / "extension.parquet",
    )
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "bad.jsonl.gz").write_bytes(b"not gzip")
    (folder / "object.json").write_text('[{"question": "a"}')
    (folder / "nolist.json").write_text("[1, 2")
    (folder / "table.csv").write_text("question\na\n")
    (folder / "hollow").mkdir()
    names = ["cut.parquet", "garbage.parquet", "empty.parquet", "norows.parquet", "columns.parquet", "extension.parquet", "empty.jsonl",
             "bad.jsonl.gz", "object.json", "nolist.json", "table.csv", "hollow", "missing.jsonl", "*.nothing", "no/such/folder/at/all"]  # fmt: skip
    return {n: str(folder / n) for n in names}


def test_a_file_that_cannot_be_read_is_one_line_with_a_remedy(tmp_path: Path):
    for name, spec in bad_files(tmp_path).items():
        with pytest.raises(InputError) as e:
            read_prompts(spec)
        assert "\n" not in str(e.value) and "expected" in str(e.value), name


def test_bytes_that_are_no_text_in_parquet_are_set_aside(tmp_path: Path):
    column = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff\xfe"], pa.binary()).buffers())
    pq.write_table(pa.table({"question": column}), tmp_path / "f.parquet")
    read = read_prompts(str(tmp_path / "f.parquet"))
    assert read.rows.num_rows == 1 and read.reasons() == {"not_utf8": 1}


def test_a_line_beyond_the_limit_is_set_aside_without_being_held(tmp_path: Path):
    with (tmp_path / "f.jsonl").open("wb") as file:
        file.write(b'{"question": "' + b"x" * (17 * 2**20) + b'"}\n' + GOOD)
    read = read_prompts(str(tmp_path / "f.jsonl"))
    assert read.rows.num_rows == 1 and read.reasons() == {"too_long": 1}


def test_hostile_text_cannot_draw_on_the_terminal(tmp_path: Path):
    assert visible("a\x1b[2Jb\u202ec\u200b") == "a\\x1b[2Jb\\u202ec\\u200b" and len(visible("x" * 10**6)) < 400
    shown = show(lines(tmp_path / "f.jsonl", [{"question": "\x1b[31mred\u202e"}]))
    assert "\x1b" not in shown and "\u202e" not in shown and "1 usable rows" in shown
