"""A judge is believed where it says the same in both orders."""

import math

import pyarrow as pa
import pytest

from curation.engine import Reply, Request
from curation.judge import JudgePairs, verdict
from curation.pairs import OnPolicyPairs
from curation.stage import settle
from tests.fakes import FakeEngine, scored_rows


def pairs(n: int) -> pa.Table:
    rows = scored_rows(
        [(f"p{i}", math.nan, "stop", text) for i in range(n) for text in (f"good one {i}", f"bad one {i}")]
    )
    return OnPolicyPairs(rule="unjudged")(rows).rows


def judge_of(say) -> JudgePairs:
    def script(request: Request, sample: int) -> Reply:
        text = request.messages[-1]["content"]
        first = text.partition("[Answer A]\n")[2].startswith("good")
        return Reply(sample, say(first), "stop", 1)

    return JudgePairs(FakeEngine(script, name="judge@1"))


def test_the_better_side_is_chosen_whichever_way_the_pair_came():
    rows = pairs(12)
    stage = judge_of(lambda good_first: f"So. Better: {'A' if good_first else 'B'}")
    found = settle(stage, rows, stage(rows)).rows.to_pylist()
    assert len(found) == 12 and all(p["chosen"][0]["content"].startswith("good") for p in found)
    assert {p["pair_id"] != p["judged_from"] for p in found} == {True, False}, "some were turned, some were not"
    assert all((p["margin"], p["kind"]) == (1.0, "unjudged+judge") for p in found)


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (lambda _: "Better: A", "judge_disagrees"),
        (lambda first: "Better: tie", "tie"),
        (lambda _: "I like both", "no_verdict"),
        (lambda first: "Better: tie" if first else "Better: A", "judge_disagrees"),
    ],
)
def test_a_judge_that_is_not_sure_decides_nothing(say, reason: str):
    rows = pairs(3)
    stage = judge_of(say)
    assert settle(stage, rows, stage(rows)).reasons() == {reason: 3}


def test_a_model_does_not_judge_its_own_answers_unless_told_to():
    rows = pairs(2)
    own = JudgePairs(FakeEngine(name="policy@1"))
    assert settle(own, rows, own(rows)).reasons() == {"judges_itself": 2}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("Better: A", "first"), ("**Better: B**", "second"), ("better: [tie]", "tie"), ("A", "first"), ("Better: A\nno, Better: B", "second"),
     ("A is good", None), ("", None)],
)  # fmt: skip
def test_verdicts_are_read_strictly(text: str, wanted: str | None):
    assert verdict(text) == wanted
