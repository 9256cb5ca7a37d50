"""What `thresher export` writes is what each reader documents; a shard set is read back whole."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curation.errors import InputError
from curation.export import WRITERS, export
from curation.schema import SFT, conform

USER, GOOD, BAD = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}  # fmt: skip


@pytest.fixture
def sft(tmp_path: Path) -> str:
    rows = conform(pa.table({"messages": pa.array([[USER, GOOD]], SFT.field("messages").type)}), SFT)
    pq.write_table(rows, tmp_path / "sft.parquet")
    return str(tmp_path / "sft.parquet")


@pytest.fixture
def dpo(tmp_path: Path) -> str:
    (tmp_path / "dpo.jsonl").write_text(json.dumps({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}) + "\n")
    return str(tmp_path / "dpo.jsonl")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_trl_gets_the_rows_without_empty_columns(sft: str, dpo: str, tmp_path: Path):
    (made,) = export(sft, "trl", str(tmp_path / "a"))
    assert pq.read_table(made).to_pylist()[0]["messages"] == [USER, GOOD] and "tools" not in pq.read_schema(made).names
    (made,) = export(dpo, "trl", str(tmp_path / "b"))
    row = pq.read_table(made).to_pylist()[0]
    assert (row["prompt"], row["chosen"], row["rejected"]) == ([USER], [GOOD], [BAD])


def test_verl_gets_strings_for_its_reward_models(dpo: str, tmp_path: Path):
    (made,) = export(dpo, "verl", str(tmp_path))
    assert pq.read_table(made).to_pylist() == [{"prompt": "Hi", "chosen": "good", "rejected": "bad"}]


def test_openrlhf_gets_its_keys(sft: str, dpo: str, tmp_path: Path):
    assert lines(export(sft, "openrlhf", str(tmp_path / "a"))[0]) == [{"prompt": [USER], "response": "good"}]
    assert lines(export(dpo, "openrlhf", str(tmp_path / "b"))[0]) == [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    ]


def test_llama_factory_gets_single_messages_and_an_entry_that_names_them(sft: str, dpo: str, tmp_path: Path):
    file, listing = export(dpo, "llama-factory", str(tmp_path / "b"))
    assert json.loads(file.read_text()) == [{"messages": [USER], "chosen": GOOD, "rejected": BAD}]
    entry = json.loads(listing.read_text())["thresher"]
    assert entry["ranking"] is True and entry["file_name"] == file.name and entry["formatting"] == "sharegpt"
    file, listing = export(sft, "llama-factory", str(tmp_path / "a"))
    assert json.loads(file.read_text()) == [{"messages": [USER, GOOD]}]
    assert "ranking" not in json.loads(listing.read_text())["thresher"]


def test_axolotl_gets_single_messages_and_the_lines_of_its_config(sft: str, dpo: str, tmp_path: Path):
    file, config = export(dpo, "axolotl", str(tmp_path / "b"))
    assert lines(file) == [{"messages": [USER], "chosen": GOOD, "rejected": BAD}]
    assert yaml.safe_load(config.read_text())["datasets"][0]["type"] == "chat_template.default"
    file, config = export(sft, "axolotl", str(tmp_path / "a"))
    assert lines(file) == [{"messages": [USER, GOOD]}]
    assert yaml.safe_load(config.read_text())["datasets"][0]["field_messages"] == "messages"


@pytest.mark.parametrize("to", WRITERS)
def test_nothing_to_export_is_one_clear_line(to: str, tmp_path: Path):
    (tmp_path / "x.jsonl").write_text('{"chosen": "a", "rejected": "a", "prompt": "Hi"}\n')
    with pytest.raises(InputError, match="no usable row"):
        export(str(tmp_path / "x.jsonl"), to, str(tmp_path / "out"))
