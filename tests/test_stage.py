from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pytest

from curation.errors import PipelineError
from curation.schema import CANDIDATES, candidate_id, canonical_json, conform, prompt_id
from curation.stage import Outcome, Stage, drops, fingerprint, lint, plain, settle, split


@dataclass(frozen=True)
class Halve(Stage):
    reads: ClassVar = ("candidate_id",)
    writes: ClassVar = ("half",)
    n: int = 2

    def __call__(self, rows):
        return split(rows, [None if i % self.n == 0 else "odd" for i in range(rows.num_rows)], self.key)


@dataclass(frozen=True)
class Lossy(Halve):
    mode: str = "lose"

    def __call__(self, rows):
        kept = rows.slice(0, 2)
        if self.mode == "lose":
            return kept
        gone = {"both": ["a", "c", "d"], "made up": ["c", "d", "z"]}[self.mode]
        return Outcome(kept, drops((i, "r", "") for i in gone))


ROWS = pa.table({"candidate_id": ["a", "b", "c", "d"]})


def test_rows_in_are_rows_out_plus_rows_dropped():
    outcome = settle(Halve(), ROWS, Halve()(ROWS))
    assert outcome.rows.num_rows == 2 and outcome.reasons() == {"odd": 2}


@pytest.mark.parametrize("mode, said", [("lose", "lost without"), ("both", "both kept"), ("made up", "never came in")])
def test_a_stage_whose_account_does_not_add_up_is_refused(mode: str, said: str):
    with pytest.raises(PipelineError, match=said):
        settle(Lossy(mode=mode), ROWS, Lossy(mode=mode)(ROWS))


def test_lint_names_the_stage_and_the_missing_column():
    with pytest.raises(PipelineError, match=r"stage 1 Halve.*no column candidate_id"):
        lint([Halve()], ["prompt_id"])
    assert lint([Halve(), Halve()], ["candidate_id"]) == ["candidate_id", "half"]
    with pytest.raises(PipelineError, match="stage 1"):
        lint([Halve], ["candidate_id"])


def test_the_fingerprint_changes_with_settings_and_upstream_and_nothing_else():
    assert fingerprint(Halve(2), "u") == fingerprint(Halve(2), "u")
    assert len({fingerprint(Halve(2), "u"), fingerprint(Halve(3), "u"), fingerprint(Halve(2), "v")}) == 3


def named(row):
    return 1.0


def test_settings_must_mean_the_same_in_every_process():
    assert plain({"f": named, "t": (1, None)}) == {"f": f"{__name__}:named", "t": [1, None]}
    for live in (lambda row: 1, object(), {1, 2}):
        with pytest.raises(PipelineError):
            plain(live)


def test_ids_come_from_content_alone():
    messages = [{"role": "user", "content": "hé"}]
    assert prompt_id(messages, "1") == prompt_id([{"content": "hé", "role": "user"}], "1")
    assert len({prompt_id(messages, "1"), prompt_id(messages, "2"), prompt_id(messages, "1", "[]")}) == 3
    assert candidate_id("p", "m", "policy", "{}", "a") != candidate_id("p", "m", "policy", "{}", "b")
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_conform_fills_what_is_missing_with_null():
    table = conform(pa.table({"prompt_id": ["p"]}), CANDIDATES)
    assert table.schema == CANDIDATES and table["completion"].null_count == 1
