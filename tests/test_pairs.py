"""Mining: no tie is a pair, no cut answer stands in one, every answer is accounted for, positions mean nothing."""

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import PipelineError
from curation.pairs import OnPolicyPairs, edit_share
from curation.schema import SCORED
from curation.stage import Outcome, settle
from tests.fakes import scored_rows

RULES = ("best_sigma", "best_worst", "best_random", "correct_wrong", "all", "unjudged")
answers = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", "r"]),
        st.sampled_from([0.0, 0.5, 1.0, math.nan]),
        st.sampled_from(["stop", "stop", "length"]),
        st.text("ab ", max_size=6),
    ),
    max_size=16,
)


@given(rows=answers, rule=st.sampled_from(RULES), per_prompt=st.integers(1, 3), margin=st.sampled_from([0.0, 0.6]))
@settings(max_examples=200, deadline=None)
def test_pairs_hold_what_they_promise_and_every_answer_is_accounted_for(
    rows, rule: str, per_prompt: int, margin: float
):
    table = scored_rows(rows)
    stage = OnPolicyPairs(rule=rule, per_prompt=per_prompt, min_margin=margin)
    outcome = settle(stage, table, stage(table))
    by_id = {r["candidate_id"]: r for r in table.to_pylist()}
    counts: dict[str, int] = {}
    for pair in outcome.rows.to_pylist():
        chosen, rejected = by_id[pair["chosen_id"]], by_id[pair["rejected_id"]]
        assert chosen["prompt_id"] == rejected["prompt_id"] == pair["prompt_id"]
        assert chosen["finish_reason"] == rejected["finish_reason"] == "stop"
        assert chosen["completion"].strip() and rejected["completion"].strip()
        assert chosen["completion"] != rejected["completion"]
        if rule == "unjudged":
            assert math.isnan(pair["margin"])
        else:
            assert pair["margin"] > 0 and pair["margin"] >= margin and pair["chosen_score"] == chosen["score"]
        if rule == "correct_wrong":
            assert chosen["score"] >= 1 > rejected["score"]
        counts[pair["prompt_id"]] = counts.get(pair["prompt_id"], 0) + 1
    assert all(n <= per_prompt for n in counts.values())


@given(rows=answers, rule=st.sampled_from(RULES), order=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_rows_changes_nothing(rows, rule: str, order):
    table = scored_rows(rows)
    shuffled = list(range(table.num_rows))
    order.shuffle(shuffled)
    pairs = [
        {p["pair_id"] for p in OnPolicyPairs(rule=rule)(t).rows.to_pylist()}
        for t in (table, table.take(pa.array(shuffled, pa.int64())))
    ]
    assert pairs[0] == pairs[1]


def mined(scores: list[float], **rule) -> list[tuple[float, float]]:
    table = scored_rows([("p", s, "stop", f"answer {i} " + "w " * i) for i, s in enumerate(scores)])
    return [(p["chosen_score"], p["rejected_score"]) for p in OnPolicyPairs(**rule)(table).rows.to_pylist()]


def test_best_sigma_is_the_worst_of_few_and_spares_the_outlier_of_many():
    assert mined([0.1, 0.4, 0.9, 0.6], rule="best_sigma") == [(0.9, 0.1)]
    spread = [0.0, *([0.5] * 20), 0.45, 0.55, 0.9, 0.3]
    assert mined(spread, rule="best_sigma") == [(0.9, 0.3)] and mined(spread, rule="best_worst") == [(0.9, 0.0)]


def test_groups_without_a_contrast_are_set_aside_by_name():
    def reasons(scores: list[float], **rule) -> dict[str, int]:
        table = scored_rows([("p", s, "stop", f"answer {i}") for i, s in enumerate(scores)])
        return OnPolicyPairs(**rule)(table).reasons()

    assert reasons([1, 1], rule="correct_wrong") == {"all_right": 2}
    assert reasons([0, 0.5], rule="correct_wrong") == {"all_wrong": 2}
    assert reasons([0.5, 0.5], passing=0.2) == {"all_right": 2}
    assert reasons([1.0]) == {"no_partner": 1} and reasons([0.1, 0.2], min_margin=0.5) == {"small_margin": 2}


def test_a_partner_of_matching_length_is_preferred_not_required():
    texts = [("p", 1.0, "stop", "a b c d e"), ("p", 0.0, "stop", "x"), ("p", 0.4, "stop", "v w x y z")]
    (pair,) = OnPolicyPairs(rule="best_worst", length_match=0.2)(scored_rows(texts)).rows.to_pylist()
    assert pair["rejected_score"] == 0.4
    (pair,) = OnPolicyPairs(rule="best_worst", length_match=0.2)(scored_rows(texts[:2])).rows.to_pylist()
    assert pair["rejected_score"] == 0.0


def test_near_identical_answers_make_no_pair():
    long = "word " * 99
    table = scored_rows([("p", 1.0, "stop", long + "x"), ("p", 0.0, "stop", long + "y")])
    assert OnPolicyPairs()(table).reasons() == {"near_identical": 2}
    assert OnPolicyPairs(min_edit=0.0)(table).rows.num_rows == 1


@pytest.mark.parametrize("column", ["model", "origin"])
def test_a_mix_of_policies_is_refused_unless_asked_for(column: str):
    table = scored_rows([("p", 1.0, "stop", "a b"), ("p", 0.0, "stop", "c d")])
    at = table.column_names.index(column)
    mixed = table.set_column(at, column, pa.array(["policy", "teacher"]))
    with pytest.raises(PipelineError, match="teacher"):
        OnPolicyPairs()(mixed)
    assert OnPolicyPairs(allow_mixed_policies=True)(mixed).rows.num_rows == 1


def test_edits_are_counted_in_words_and_in_characters_where_there_are_none():
    assert edit_share("a b c", "a x c") == pytest.approx(1 / 3)
    assert edit_share("82", "83") == 0.5 and edit_share("我是猫", "我是狗") == pytest.approx(1 / 3)


def test_an_empty_table_gives_an_empty_set():
    outcome = OnPolicyPairs()(SCORED.empty_table())
    assert isinstance(outcome, Outcome) and outcome.rows.num_rows == 0


@pytest.mark.parametrize("wrong", [{"per_prompt": 0}, {"min_margin": -1.0}, {"min_edit": 1.0}, {"length_match": 0.0}])
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(PipelineError):
        OnPolicyPairs(**wrong)
