import pytest

from curation.engine import Reply
from curation.messages import ToMessages, with_system
from curation.sample import Sample
from curation.schema import SFT
from tests.fakes import FakeEngine, prompts

USER = {"role": "user", "content": "u"}
OWN = {"role": "system", "content": "own"}


def thinking(request, sample):
    return Reply(sample, "<think>two</think>4", "stop")


def test_messages_are_prompt_and_answer_with_or_without_the_thinking():
    rows = Sample(FakeEngine(thinking))(prompts(1).rows).rows
    plain = ToMessages()(rows)
    assert plain.schema == SFT and plain["candidate_id"].to_pylist() == rows["candidate_id"].to_pylist()
    assert plain["messages"].to_pylist()[0][-1] == {"role": "assistant", "content": "4"}
    shown = ToMessages(include_reasoning=True, system="s")(rows)["messages"].to_pylist()[0]
    assert [m["content"] for m in shown] == ["s", "double 0", "<think>two</think>4"]


@pytest.mark.parametrize(
    "prompt, text, wanted",
    [
        ([USER], "s", [{"role": "system", "content": "s"}, USER]),
        ([OWN, USER], "s", [{"role": "system", "content": "s\n\nown"}, USER]),
        ([OWN, USER], None, [OWN, USER]),
        ([], "s", [{"role": "system", "content": "s"}]),
    ],
)
def test_a_conversation_has_one_system_message(prompt: list, text: str | None, wanted: list):
    before = [dict(m) for m in prompt]
    assert with_system(prompt, text) == wanted and prompt == before


def test_no_rows_give_no_rows():
    rows = Sample(FakeEngine(thinking))(prompts(1).rows).rows.slice(0, 0)
    assert ToMessages()(rows).schema == SFT
