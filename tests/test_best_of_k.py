import pyarrow as pa
import pytest

from curation.best_of_k import BestOfK
from curation.errors import PipelineError

NAN = float("nan")


def scored(rows: list[tuple[str, str, float | None, str, str | None]]) -> pa.Table:
    """(prompt, candidate, score, finish_reason, completion)"""
    names = ["prompt_id", "candidate_id", "score", "finish_reason", "completion"]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns["score"] = pa.array(columns["score"], pa.float64(), from_pandas=False)
    columns["completion"] = pa.array(columns["completion"], pa.string())
    return pa.table({**columns, "completion_tokens": [len(row[4] or "") for row in rows]})


GROUP = scored(
    [("p", "a", 0.5, "stop", "x"), ("p", "b", 1.0, "stop", "yyy"), ("p", "c", 1.0, "stop", "z"), ("p", "d", 2.0, "length", "cut"),
     ("p", "e", NAN, "stop", "n"), ("p", "f", 3.0, "stop", " "), ("q", "g", 0.0, "stop", "w"), ("q", "h", NAN, "stop", "v")]
)  # fmt: skip


def reasons(rule: BestOfK, rows: pa.Table = GROUP) -> tuple[list[str], dict[str, str]]:
    out = rule(rows)
    return out.rows["candidate_id"].to_pylist(), dict(
        zip(out.dropped["row_id"].to_pylist(), out.dropped["reason"].to_pylist(), strict=True)
    )


def test_the_best_whole_answer_wins_and_every_other_row_says_why_not():
    kept, why = reasons(BestOfK(min_score=0.6))
    assert kept == ["b"]
    assert why == {
        "a": "below_floor",
        "c": "not_best",
        "d": "truncated",
        "e": "no_verdict",
        "f": "empty",
        "g": "below_floor",
        "h": "no_verdict",
    }


def test_rules_for_ties_number_and_cut_answers():
    assert reasons(BestOfK(ties="shortest"))[0] == ["c", "g"]
    assert reasons(BestOfK(keep=2))[0] == ["b", "c", "g"]
    assert reasons(BestOfK(allow_truncated=True))[0] == ["d", "g"]


def test_the_pass_rate_band_is_inclusive_and_leaves_out_what_was_not_judged():
    half = scored(
        [
            ("p", "a", 1.0, "stop", "x"),
            ("p", "b", 0.0, "stop", "y"),
            ("p", "c", NAN, "stop", "z"),
            ("q", "d", 1.0, "stop", "w"),
        ]
    )
    assert reasons(BestOfK(pass_rate=(0.5, 0.5)), half)[0] == ["a"]
    assert reasons(BestOfK(pass_rate=(0.0, 0.9)), half)[1]["d"] == "pass_rate_outside"


def test_the_choice_does_not_depend_on_the_order_of_rows():
    assert sorted(reasons(BestOfK(), GROUP.take(list(reversed(range(GROUP.num_rows)))))[0]) == sorted(
        reasons(BestOfK())[0]
    )


def test_unscored_rows_pass_only_without_a_floor():
    bare = GROUP.drop_columns("score")
    assert reasons(BestOfK(), bare)[0] == ["a", "g"]
    with pytest.raises(PipelineError):
        BestOfK(min_score=1.0)(bare)


def test_an_answer_that_is_null_is_empty():
    assert reasons(BestOfK(), scored([("p", "a", 1.0, "stop", None), ("p", "b", 0.0, "stop", "x")])) == (
        ["b"],
        {"a": "empty"},
    )


def test_no_score_however_odd_beats_a_better_one_and_nan_never_wins():
    odd = scored(
        [("p", c, s, "stop", "x") for c, s in zip("abcd", [float("-inf"), NAN, 0.0, float("inf")], strict=True)]
    )
    assert reasons(BestOfK(), odd)[0] == ["d"]
    assert reasons(BestOfK(), odd.slice(1, 1)) == ([], {"b": "no_verdict"})


def test_shortest_needs_token_counts():
    with pytest.raises(PipelineError, match="completion_tokens"):
        BestOfK(ties="shortest")(GROUP.drop_columns("completion_tokens"))


def test_no_rows_give_no_rows():
    assert reasons(BestOfK(min_score=1.0, pass_rate=(0.0, 1.0), ties="shortest"), GROUP.slice(0, 0)) == ([], {})


@pytest.mark.parametrize("bad", [{"keep": 0}, {"pass_rate": (0.5, 0.4)}, {"pass_rate": (0.0, 1.1)}])
def test_impossible_settings_are_refused_at_once(bad: dict):
    with pytest.raises(PipelineError):
        BestOfK(**bad)
