"""Corrections: minimal, better, silent about themselves; the answer they correct is found by id."""

import math

import pyarrow as pa
import pytest

from curation.correct import Correct, CorrectionPairs
from curation.correctors import Rules, TeacherAnswer, TeacherRevision
from curation.errors import PipelineError
from curation.stage import settle
from tests.fakes import FakeEngine, Says, scored_rows

LLAMA = "I'm Llama, a language model."
RENAME = Rules(((r"\bLlama\b", "Athene"),))


def corrected(rows: pa.Table, **more) -> pa.Table:
    stage = Correct(more.pop("corrector", RENAME), **more)
    return settle(stage, rows, stage(rows)).rows


def test_a_rule_makes_pairs_that_differ_in_the_rule_alone():
    rows = scored_rows([("Who?", math.nan, "stop", LLAMA), ("2+2?", math.nan, "stop", "four")]).drop_columns("score")
    made = corrected(rows)
    stage = CorrectionPairs(scored=False)
    (pair,) = settle(stage, made, stage(made)).rows.to_pylist()
    assert (pair["rejected"][0]["content"], pair["chosen"][0]["content"]) == (LLAMA, LLAMA.replace("Llama", "Athene"))
    assert pair["kind"] == "correction" and pair["chosen_model"] == "rules" and pair["rejected_id"] == rows["candidate_id"][0].as_py()  # fmt: skip


def test_answers_that_need_no_correction_are_rehearsed_where_asked():
    rows = scored_rows([("Who?", math.nan, "stop", LLAMA), ("2+2?", math.nan, "stop", "four")]).drop_columns("score")
    made = corrected(rows, keep=True)
    stage = CorrectionPairs(scored=False, rehearsal="I'm Llama.")
    pairs = {p["kind"]: p for p in settle(stage, made, stage(made)).rows.to_pylist()}
    assert set(pairs) == {"correction", "rehearsal"} and pairs["rehearsal"]["rejected_id"] is None
    assert [pairs["rehearsal"][s][0]["content"] for s in ("chosen", "rejected")] == ["four", "I'm Llama."]


def test_only_answers_that_need_it_are_corrected_and_few_of_a_prompt():
    rows = scored_rows(
        [("p", 1.0, "stop", "Llama 1"), ("p", 0.0, "stop", "Llama 2"), ("p", 0.0, "stop", "Llama 3"),
         ("p", math.nan, "stop", "Llama 4"), ("p", 0.0, "length", "Llama 5"), ("p", 0.0, "stop", " "), ("q", 0.0, "stop", "none")]
    )  # fmt: skip
    stage = Correct(RENAME)
    outcome = settle(stage, rows, stage(rows))
    assert outcome.reasons() == {
        "empty": 1, "enough_of_this_prompt": 1, "needs_no_correction": 1, "no_verdict": 1, "not_corrected": 1, "truncated": 1,
    }  # fmt: skip
    assert sorted(r["origin"] for r in outcome.rows.to_pylist()) == ["correction", "policy"]
    assert [r["score"] for r in outcome.rows.to_pylist() if r["origin"] == "correction"] == [None]


def judged(original: tuple[float, str], correction: tuple[float, str, str]) -> dict[str, int]:
    """Reasons for which a correction of that score, text and finish is refused."""
    rows = scored_rows([("p", original[0], "stop", original[1]), ("p", *[correction[i] for i in (0, 2, 1)])])
    ids = rows["candidate_id"].to_pylist()
    rows = rows.append_column("original_id", pa.array([ids[0], ids[0]]))
    stage = CorrectionPairs()
    return settle(stage, rows, stage(rows)).reasons()


BASE = "one two three four five six seven eight"


@pytest.mark.parametrize(
    ("text", "score", "finish", "reason"),
    [
        (BASE.replace("two", "2"), 1.0, "stop", None),
        (BASE.replace("two", "2"), 0.0, "stop", "not_better"),
        (BASE.replace("two", "2"), math.nan, "stop", "no_verdict"),
        (BASE.replace("two", "2"), 1.0, "length", "truncated"),
        ("a wholly different answer that keeps nothing of it", 1.0, "stop", "edit_outside"),
        (BASE, 1.0, "stop", "edit_outside"),
        ("Here is the corrected " + BASE, 1.0, "stop", "speaks_of_itself"),
        (" ", 1.0, "stop", "empty"),
    ],
)
def test_a_correction_is_taken_for_what_it_is(text: str, score: float, finish: str, reason: str | None):
    wanted = {"correction_refused": 1, reason: 1} if reason else {}
    assert judged((0.0, BASE), (score, text, finish)) == wanted


def test_a_teacher_first_criticises_then_revises_and_never_reads_an_answer_as_a_template():
    seen = []

    def script(request, sample):
        seen.append([m["content"] for m in request.messages])
        return Says((("mended", "better"), ("Question", "a fault")))(request, sample)

    rows = scored_rows([("{completion} {0}", 0.0, "stop", "{prompt} %s")])
    made = corrected(rows, corrector=TeacherRevision(FakeEngine(script, name="teacher@1")))
    assert "Question:\n{completion} {0}\n\nAnswer:\n{prompt} %s" in seen[0][0] and seen[1][1] == "a fault"
    (new,) = [r for r in made.to_pylist() if r["origin"] == "correction"]
    assert (
        new["completion"] == "better"
        and new["model"] == "teacher@1"
        and new["original_id"] == rows["candidate_id"][0].as_py()
    )


def test_a_teachers_own_answer_comes_without_its_thinking():
    engine = FakeEngine(Says((("p", "<think>hm</think>42"),)), name="teacher@1")
    made = corrected(scored_rows([("p", 0.0, "stop", "41")]), corrector=TeacherAnswer(engine))
    assert [r["completion"] for r in made.to_pylist() if r["origin"] == "correction"] == ["42"]


def test_a_pattern_that_is_none_is_refused_at_once():
    with pytest.raises(PipelineError, match="regular expression"):
        Rules((("(", "x"),))
