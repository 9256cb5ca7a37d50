import pyarrow as pa
import pytest

from curation.best_of_k import BestOfK
from curation.engine import Reply, sample_seed
from curation.errors import PipelineError
from curation.messages import ToMessages
from curation.sample import Sample, split_reasoning
from curation.schema import CANDIDATES, SFT
from tests.fakes import FakeEngine, prompts


def test_every_prompt_gets_its_k_samples_as_rows_of_the_candidate_schema():
    out = Sample(FakeEngine(), k=3)(prompts(4).rows)
    assert out.rows.schema == CANDIDATES and out.rows.num_rows == 12 and out.counters["tokens"] == 24
    assert len(set(out.rows["candidate_id"].to_pylist())) == 12
    assert set(out.rows["model"].to_pylist()) == {"fake@1"}


def test_a_prompt_without_an_answer_leaves_with_the_engines_reason():
    def script(request, sample):
        failed = request.messages[-1]["content"] == "double 1"
        return Reply(sample, "", "error", error="rejected: too long") if failed else Reply(sample, "x", "stop")

    out = Sample(FakeEngine(script), k=2)(prompts(3).rows)
    assert out.rows.num_rows == 4 and out.reasons() == {"rejected": 1} and out.counters["answers rejected"] == 2


def test_a_partly_answered_prompt_keeps_what_came():
    def script(request, sample):
        return Reply(sample, "", "error", error="failed: 500") if sample else Reply(sample, "x", "stop")

    out = Sample(FakeEngine(script), k=3)(prompts(2).rows)
    assert out.rows.num_rows == 2 and out.dropped.num_rows == 0 and out.counters["answers failed"] == 4


def test_hidden_context_reaches_the_engine_and_not_the_rows():
    seen = []

    def script(request, sample):
        seen.append((request.messages[0]["content"], request.tools))
        return Reply(sample, "x", "stop")

    rows = prompts(1).rows
    rows = rows.set_column(rows.column_names.index("tools"), "tools", pa.array(['[{"name":"calc"}]']))
    out = Sample(FakeEngine(script), hidden_system="be brief", hidden_tools=True)(rows)
    assert seen == [("be brief", '[{"name":"calc"}]')]
    assert out.rows["tools"].to_pylist() == [None] and len(out.rows["prompt"].to_pylist()[0]) == 1


@pytest.mark.parametrize(
    "text, answer, reasoning",
    [
        ("<think>a</think>b", "b", "a"),
        ("a</think>\n\nb", "b", "a"),
        ("b", "b", None),
        ("<think>endless", "", "endless"),
        ("", "", None),
    ],
)
def test_reasoning_is_kept_apart_from_the_answer(text: str, answer: str, reasoning: str | None):
    assert split_reasoning(text) == (answer, reasoning)


@pytest.mark.parametrize("bad", [{"k": 0}, {"max_tokens": 0}, {"temperature": -1.0}, {"origin": "robot"}])
def test_impossible_settings_are_refused_at_once(bad: dict):
    with pytest.raises(PipelineError):
        Sample(FakeEngine(), **bad)


def test_seeds_follow_from_run_seed_prompt_and_index():
    assert sample_seed(0, "p", 3) == sample_seed(0, "p", 0) + 3
    assert len({sample_seed(s, p, 0) for s in range(5) for p in "abc"}) == 15


def scored(rows: list[tuple[str, str, float | None, str, str]]) -> pa.Table:
    """(prompt, candidate, score, finish_reason, completion)"""
    names = ["prompt_id", "candidate_id", "score", "finish_reason", "completion"]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns["score"] = pa.array(columns["score"], pa.float64(), from_pandas=False)
    return pa.table({**columns, "completion_tokens": [len(c) for c in columns["completion"]]})


NAN = float("nan")
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


def test_messages_are_prompt_and_answer_with_or_without_the_thinking():
    def script(request, sample):
        return Reply(sample, "<think>two</think>4", "stop")

    rows = Sample(FakeEngine(script))(prompts(1).rows).rows
    plain = ToMessages()(rows)
    assert plain.schema == SFT
    assert plain["messages"].to_pylist()[0][-1] == {"role": "assistant", "content": "4"}
    thinking = ToMessages(include_reasoning=True, system="s")(rows)["messages"].to_pylist()[0]
    assert [m["content"] for m in thinking] == ["s", "double 0", "<think>two</think>4"]
