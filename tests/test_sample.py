import pyarrow as pa
import pytest

from curation.engine import Reply, sample_seed
from curation.errors import PipelineError
from curation.sample import Sample, split_reasoning
from curation.schema import CANDIDATES, PROMPTS
from tests.fakes import FakeEngine, Flaky, prompts


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


def test_hidden_context_joins_a_system_message_that_is_there():
    seen = []

    def script(request, sample):
        seen.append([(m["role"], m["content"]) for m in request.messages])
        return Reply(sample, "x", "stop")

    row = prompts(1).rows.to_pylist()[0]
    row["prompt"] = [{"role": "system", "content": "own"}, *row["prompt"]]
    out = Sample(FakeEngine(script), hidden_system="be brief")(pa.Table.from_pylist([row], schema=PROMPTS))
    assert seen == [[("system", "be brief\n\nown"), ("user", "double 0")]]
    assert out.rows["prompt"].to_pylist() == [row["prompt"]]


def test_reasoning_that_the_engine_keeps_apart_is_taken_as_it_is():
    out = Sample(FakeEngine(lambda r, s: Reply(s, "a</think>b", "stop", reasoning="r")))(prompts(1).rows).rows
    assert out["completion"].to_pylist() == ["a</think>b"] and out["reasoning"].to_pylist() == ["r"]


def test_a_prompt_the_engine_says_nothing_about_leaves_as_failed():
    def silent(engine, requests):
        return ((r, [Reply(0, "x", "stop")]) for r in requests[1:])

    out = Sample(FakeEngine())(prompts(3).rows, silent)
    assert out.rows.num_rows == 2 and out.reasons() == {"failed": 1}


def test_an_engine_that_fails_now_and_then_loses_no_prompt_it_answered():
    out = Sample(FakeEngine(Flaky(3)), k=2)(prompts(9).rows)
    assert out.reasons() == {"failed": 3} and out.rows.num_rows == 12
