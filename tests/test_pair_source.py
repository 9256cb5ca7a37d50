"""Preference rows of every common layout become the same rows; what cannot be used leaves with a reason."""

import json
from pathlib import Path

import pytest

from curation.errors import InputError
from curation.pair_source import dialogue, read_pairs

USER = [{"role": "user", "content": "Hi"}]
GOOD, BAD = ([{"role": "assistant", "content": c}] for c in ("good", "bad"))


def read(tmp_path: Path, *rows: dict):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return read_pairs(str(tmp_path / "p.jsonl"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "good", "rejected": "bad"},
        {"question": "Hi", "chosen": "good", "rejected": "bad"},
        {"instruction": "Hi", "input": "", "chosen": "good", "rejected": "bad"},
        {"prompt": USER, "chosen": GOOD, "rejected": BAD},
        {"prompt": "Hi", "chosen": GOOD, "rejected": BAD},
        {"messages": USER, "chosen": GOOD[0], "rejected": BAD[0]},
        {"prompt": "Hi", "chosen": USER + GOOD, "rejected": USER + BAD},
        {"chosen": USER + GOOD, "rejected": USER + BAD},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": BAD,
        },
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " good", "rejected": " bad"},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: good", "rejected": "\n\nHuman: Hi\n\nAssistant: bad"},
    ],
    ids=str,
)
def test_every_layout_is_read_alike(tmp_path: Path, row: dict):
    (found,) = read(tmp_path, row).rows.to_pylist()
    assert found["prompt"] == USER
    assert [found[s][0]["content"].strip() for s in ("chosen", "rejected")] == ["good", "bad"]


def test_scores_models_weights_and_ids_are_kept(tmp_path: Path):
    row = {"prompt": "Hi", "chosen": "good", "rejected": "bad", "score_chosen": 4, "score_rejected": 1.5, "weight": 0.5,
           "chosen_model": "m", "offset": 0.2}  # fmt: skip
    (first,) = read(tmp_path, row).rows.to_pylist()
    assert (first["chosen_score"], first["rejected_score"], first["margin"]) == (4.0, 1.5, 2.5)
    assert (first["weight"], first["offset"], first["chosen_model"], first["kind"]) == (0.5, 0.2, "m", "imported")
    (again,) = read(tmp_path, {k: v for k, v in first.items() if k != "margin"}).rows.to_pylist()
    assert again == first  # our own rows come back as they are


def test_bad_rows_leave_with_a_reason_and_repeats_once(tmp_path: Path):
    good = {"prompt": "Hi", "chosen": "good", "rejected": "bad"}
    found = read(
        tmp_path, good, good, {**good, "rejected": "good"}, {**good, "chosen": None}, {**good, "chosen": " "},
        {**good, "prompt": ""}, {**good, "chosen": [*GOOD, *USER]}, {**good, "weight": "x"}, {"chosen": "a", "rejected": "b"},
    )  # fmt: skip
    assert found.rows.num_rows == 1 and found.reasons() == {
        "bad_answer": 1, "bad_weight": 1, "duplicate_pair": 1, "empty_answer": 1, "empty_prompt": 2, "no_answer": 1,
        "no_difference": 1,
    }  # fmt: skip


def test_no_pair_columns_at_all_is_one_clear_line(tmp_path: Path):
    with pytest.raises(InputError, match="columns a"):
        read(tmp_path, {"a": 1})


def test_a_dialogue_is_split_between_turns_alone():
    assert dialogue("Human: a\n\nAssistant: b\n\nHuman: c: d") == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c: d"},
    ]
    assert dialogue("What does Human: mean?") is None and dialogue("plain") is None
