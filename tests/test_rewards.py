"""Rewards: right is 1, wrong is 0, and what could not be judged is NaN with its reason."""

import math
import time
from dataclasses import dataclass

import pyarrow as pa
import pytest

from curation.answers import as_number, final_answer
from curation.errors import InputError, PipelineError
from curation.math_reward import MathReward, _worker_of
from curation.pass_at_k import majority_vote, mean_pass_at_k, pass_at_k
from curation.rewards import ExactMatch, FormatCheck, FunctionReward, NumericMatch, WeightedSum, reward_by_name
from curation.score import Score


def judge(reward, completion: str, truth: str | None = None):
    table = pa.table(
        {
            "candidate_id": ["c"],
            "prompt_id": ["p"],
            "completion": [completion],
            "ground_truth": pa.array([truth], pa.string()),
        }
    )
    (verdict,) = reward(table)
    return verdict


@pytest.mark.parametrize(
    "text, answer",
    [
        ("6*7=42\n#### 42", "42"), ("#### 1\n#### 2", "2"), ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"), ("A: 18 dollars.\n", "18 dollars"),
        ("The answer is $5.50.", "$5.50"), ("Final answer: 7", "7"), ("\\boxed{1} but #### 2", "2"), ("no mark 3", None), ("####", None),
        ("\\boxed{unclosed", None),
    ],
)  # fmt: skip
def test_the_last_marked_answer_counts(text: str, answer: str | None):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text, value",
    [("1,204", 1204), ("$5.50", 5.5), ("-3/4", -0.75), ("12%", 12), ("1e5", None), ("٣", None), ("nan", None), ("inf", None), ("1/0", None),
     ("2 apples", None), ("", None), ("9" * 300, None), ("−7", -7), (".5", 0.5)],
)  # fmt: skip
def test_numbers_are_read_exactly_or_not_at_all(text: str, value: float | None):
    found = as_number(text)
    assert (found is None) if value is None else float(found) == value


@pytest.mark.parametrize(
    "reward, completion, truth, score",
    [
        (ExactMatch(), " cat\n", "cat", 1), (ExactMatch(), "Cat", "cat", 0), (ExactMatch(ignore_case=True), "Cat", "cat", 1),
        (ExactMatch(strict=True), "cat\n", "cat", 0), (NumericMatch(), "I get 1,204.", "1204", 1), (NumericMatch(), "none", "3", 0),
        (NumericMatch(0.01), "3.1416", "3.14159", 1), (NumericMatch(), "3.1416", "3.14159", 0), (NumericMatch(), "5", "x+1", math.nan),
        (ExactMatch(), "cat", None, math.nan), (FormatCheck(pattern=r"\d+"), "123", None, 1), (FormatCheck(pattern=r"\d+"), "12a", None, 0),
        (FormatCheck(is_json=True), '{"a": 1}', None, 1), (FormatCheck(is_json=True), "[" * 10**5, None, 0),
        (FormatCheck(tags=("<a>", "</a>")), "x<a>y</a>", None, 1), (FormatCheck(tags=("<a>", "</a>")), "</a><a>", None, 0),
    ],
)  # fmt: skip
def test_verdicts(reward, completion: str, truth: str | None, score: float):
    found = judge(reward, completion, truth).score
    assert found == score or (math.isnan(found) and math.isnan(score))


def length(row):
    return len(row["completion"]) / 10


def broken(row):
    return row["no such column"]


def unsure(row):
    return None


def test_a_function_scores_and_its_faults_are_no_verdict():
    assert judge(FunctionReward(length), "12345").score == 0.5
    assert judge(FunctionReward(broken), "x").verdict == "crashed: KeyError"
    assert all(math.isnan(judge(FunctionReward(f), "x").score) for f in (broken, unsure))
    assert judge(reward_by_name(f"{__name__}:length"), "12345").score == 0.5


def test_a_weighted_sum_keeps_its_parts_and_is_silent_when_one_is():
    both = WeightedSum((ExactMatch(), FunctionReward(length)), (1.0, 0.5))
    found = judge(both, "cat", "cat")
    assert found.score == pytest.approx(1.15) and found.parts == {"exact": 1.0, "length": 0.3}
    silent = judge(both, "cat", None)
    assert math.isnan(silent.score) and silent.parts["length"] == 0.3
    with pytest.raises(PipelineError):
        WeightedSum((ExactMatch(), ExactMatch()), (1.0, 1.0))


def test_score_writes_nan_and_never_null_or_zero_for_no_verdict():
    table = pa.table({"candidate_id": ["a", "b"], "completion": ["1", "2"], "ground_truth": pa.array(["1", None])})
    out = Score(ExactMatch())(table)
    assert (
        out.rows["score"].null_count == 0
        and math.isnan(out.rows["score"][1].as_py())
        and out.counters == {"no_verdict": 1}
    )
    assert out.rows["scores"].to_pylist()[0] == [("exact", 1.0)]


@pytest.mark.parametrize("name", ["maths", "nowhere:f", "curation.rewards:nothing", ""])
def test_an_unknown_reward_is_one_line(name: str):
    with pytest.raises(InputError):
        reward_by_name(name)


@pytest.mark.parametrize(
    "completion, truth, verdict",
    [
        ("#### 42", "42", "pass"), ("#### 42.0", "42", "pass"), ("x = \\boxed{\\frac{84}{2}}", "42", "pass"), ("\\boxed{2^5}", "32", "pass"),
        ("\\boxed{\\frac{1}{2}}", "0.5", "pass"), ("\\boxed{x+1}", "1+x", "pass"), ("\\boxed{x-1}", "1+x", "fail"),
        ("$\\boxed{(1,2)}$", "(1,2)", "pass"), ("I do not know", "42", "no_answer"), ("41", "42", "fail"), ("12 apples", "12", "pass"),
        ("\\boxed{\\sqrt{16}}", "4", "pass"), ("", "42", "no_answer"),
    ],
)  # fmt: skip
def test_math_answers(completion: str, truth: str, verdict: str):
    assert judge(MathReward(), completion, truth).verdict == verdict


HOSTILE = [
    "\\boxed{9^{9^{9^{9^{9}}}}}", "\\boxed{" + "\\frac{1}{" * 300 + "2" + "}" * 301, "\\boxed{" + "(" * 5000 + "}", "####",
    "\\boxed{__import__('os').system('touch /tmp/owned')}", "#### " + "9" * 10**6, "\x00\\boxed{\x00}", "\\boxed{\\int_0^{10^{100}} x^{x^x}}",
    "\\boxed{100000000!!!!}", "#### nan", "#### inf", "\\boxed{٣}", "\\boxed{" + "x^" * 2000 + "2}", "\\boxed{{1,2,3}\\cup" * 500,
]  # fmt: skip


def test_hostile_answers_end_in_a_verdict_soon_and_the_grader_lives_on():
    reward = MathReward(timeout=2.0)
    judge(reward, "\\boxed{x}", "x")  # starts the worker, which takes its time
    for completion in HOSTILE:
        started = time.monotonic()
        found = judge(reward, completion, "x^2+1")
        assert found.score == 0.0 and time.monotonic() - started < 25, completion[:40]
    assert judge(reward, "\\boxed{1+x^2}", "x^2+1").score == 1.0


def test_a_grader_that_hangs_is_killed_and_replaced():
    reward = MathReward(timeout=0.5)
    judge(reward, "\\boxed{y}", "y")
    worker = _worker_of(reward)
    first = worker.process.pid
    assert judge(reward, "\\boxed{9^{9^{9^{9}}}+x}", "y").verdict in ("timeout", "crashed", "fail", "no_answer")
    worker.process and worker.process.kill()
    assert judge(reward, "\\boxed{y}", "y").verdict == "pass" and worker.process.pid != first
    worker.close()
    assert worker.process is None


def test_pass_at_k_is_the_share_of_k_subsets_with_a_right_answer():
    import itertools

    for n, c, k in [(4, 1, 2), (5, 2, 3), (6, 0, 2), (6, 6, 1), (5, 4, 2)]:
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets))
    assert math.isnan(pass_at_k(2, 1, 4)) and pass_at_k(10**6, 1, 10**5) == pytest.approx(0.1)


def test_votes_count_answers_not_texts_and_ties_share_the_win():
    rows = pa.table(
        {
            "prompt_id": ["p"] * 3 + ["q"] * 2 + ["r"],
            "completion": ["#### 12", "so 12.0 #### 12.0", "#### 9", "#### 1", "#### 2", "#### 5"],
            "score": [1.0, 1.0, 0.0, 1.0, 0.0, math.nan],
        }
    )
    assert majority_vote(rows) == {"p": 1.0, "q": 0.5}
    assert mean_pass_at_k(rows, 2) == pytest.approx(1.0) and mean_pass_at_k(rows, 1) == pytest.approx(
        (2 / 3 + 1 / 2) / 2
    )


@dataclass(frozen=True)
class Nothing:
    name = "nothing"

    def __call__(self, rows):
        return []


def test_a_reward_that_loses_rows_is_refused():
    with pytest.raises(AssertionError):
        Score(Nothing())(pa.table({"candidate_id": ["a"], "completion": ["x"]}))
