"""Imported corrections: both sides of a row, joined by id, under the rules of our own."""

import json
from pathlib import Path

import pytest

from curation.correct import CorrectionPairs
from curation.correction_source import read_corrections
from curation.stage import settle
from pipelines.cli import main

ALPACA = {
    "raw_instruction": "Name a fruit and say why it is good.", "raw_input": "", "raw_output": "The carrot is a good fruit to eat.",
    "revised_instruction": "Name a fruit and say why it is good.", "revised_input": "", "revised_output": "The apple is a good fruit to eat.",
}  # fmt: skip


def read(tmp_path: Path, *rows: dict):
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return read_corrections(str(tmp_path / "c.jsonl"))


@pytest.mark.parametrize(
    "row",
    [
        ALPACA,
        {"prompt": "Hi", "original": "The carrot is a good fruit to eat.", "corrected": "The apple is a good fruit to eat."},
        {"question": "Hi", "original_answer": "The carrot is a good fruit to eat.", "corrected_answer": "The apple is a good fruit to eat."},
    ],
    ids=["alpaca", "bare", "answers"],
)  # fmt: skip
def test_a_correction_and_its_original_become_a_pair(tmp_path: Path, row: dict):
    rows = read(tmp_path, row).rows
    stage = CorrectionPairs(scored=False)
    (pair,) = settle(stage, rows, stage(rows)).rows.to_pylist()
    assert "apple" in pair["chosen"][0]["content"] and "carrot" in pair["rejected"][0]["content"]


def test_rows_whose_prompt_was_edited_too_are_set_aside(tmp_path: Path):
    found = read(
        tmp_path, ALPACA, {**ALPACA, "revised_instruction": "Name a root."}, {**ALPACA, "revised_output": ALPACA["raw_output"]},
        {**ALPACA, "raw_output": ""}, {"prompt": "Hi"},
    )  # fmt: skip
    assert found.rows.num_rows == 2
    assert found.reasons() == {"empty_answer": 1, "no_difference": 1, "no_known_columns": 1, "prompt_changed": 1}


def test_the_recipe_imports_them_and_columns_may_be_renamed(tmp_path: Path):
    rows = [
        {
            "frage": "Hi",
            "before": "The carrot is a good fruit to eat.",
            "revised_output": "The apple is a good fruit to eat.",
        }
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = [
        "run",
        "correction_dpo",
        "--imported",
        "--prompts",
        str(tmp_path / "c.jsonl"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*words, "--rename", "frage=prompt", "before=raw_output"]) == 0
    assert main(["show", str(tmp_path / "run")]) == 0
    assert main([*words, "--rename", "frage"]) == 2
