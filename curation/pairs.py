"""Preference pairs from scored candidates of one policy, and from corrections of its answers.

    scored ──OnPolicyPairs──> dpo          scored + corrections ──CorrectionPairs──> dpo

Every candidate leaves with a reason or stands in a pair. A tie is never a pair; a side that was cut off or is empty never
stands in one. Groups that are all right or all wrong teach no preference: they are set aside by that name, the wrong
ones for the correction stage, the right ones as an easy pool.
"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import pyarrow as pa
from rapidfuzz.distance import Levenshtein

from curation.errors import PipelineError
from curation.schema import DPO, content_id, pair_id
from curation.stage import Outcome, Stage, by_prompt, drops

Rule = Literal["best_sigma", "best_worst", "best_random", "correct_wrong", "all", "unjudged"]
WHOLE = ("stop", "tool_calls")
PAIRED = ("prompt_id", "prompt", "source", "task", "tools", "candidate_id", "completion", "model", "score")


class Answer(NamedTuple):
    """One candidate as the miner sees it."""

    row: int
    candidate_id: str
    text: str
    score: float
    tokens: int


@dataclass(frozen=True)
class OnPolicyPairs(Stage):
    """Mine pairs from each prompt's scored answers.

    best_sigma     best against the one nearest to two standard deviations below the mean (arXiv 2502.16825): up to
                   K = 16 that is the worst; with more answers it is steadier than the worst
    best_worst     best against worst (RLHFlow, SimPO)
    best_random    best against a lower one drawn by seed and prompt (Tülu 3)
    correct_wrong  answers that reach `passing` against answers that do not
    all            all pairs with a large enough margin, widest first
    unjudged       two different answers drawn by seed; no score is read: for a judge or a person to decide
    """

    reads: ClassVar = ("prompt_id", "prompt", "candidate_id", "completion", "finish_reason", "model", "origin")
    writes: ClassVar = tuple(DPO.names)
    replaces: ClassVar = True
    carries: ClassVar = ("chosen_id", "rejected_id")

    rule: Rule = "best_sigma"
    min_margin: float = 0.0  # in units of the score; more than 0 always
    passing: float = 1.0  # a score that counts as right
    per_prompt: int = 1  # pairs of one prompt, at most; every answer stands in one pair unless the rule is "all"
    length_match: float | None = None  # prefer partners whose lengths differ by less than this share of their mean
    min_edit: float = 0.02  # share of the text that must differ
    allow_truncated: bool = False
    allow_mixed_policies: bool = False  # pair answers of different models or origins
    seed: int = 0  # of best_random and unjudged

    def __post_init__(self) -> None:
        if (
            self.per_prompt < 1
            or self.min_margin < 0
            or not 0 <= self.min_edit < 1
            or (self.length_match is not None and self.length_match <= 0)
        ):
            raise PipelineError(
                "OnPolicyPairs", f"per_prompt={self.per_prompt} min_margin={self.min_margin} min_edit={self.min_edit} "
                f"length_match={self.length_match}", "per_prompt ≥ 1, min_margin ≥ 0, 0 ≤ min_edit < 1, length_match > 0",
                "correct the setting",
            )  # fmt: skip

    def __call__(self, rows: pa.Table) -> Outcome:
        if self.rule != "unjudged" and "score" not in rows.column_names:
            raise PipelineError("OnPolicyPairs", "no column score", "scored rows", "put a Score stage before it")
        if not self.allow_mixed_policies:
            refuse_mixed(rows)
        columns = _columns(rows, self.rule != "unjudged")
        pairs: list[tuple[int, int]] = []
        gone: list[tuple[str, str, str]] = []
        for pid, group in by_prompt(rows):
            answers, barred = usable(columns, group, self)
            gone += barred
            found, why = mine(answers, self, pid)
            pairs += [(a.row, b.row) for a, b in found]
            used = {answer.row for pair in found for answer in pair}
            gone += [(a.candidate_id, why, "") for a in answers if a.row not in used]
        return Outcome(pair_table(rows, pairs, self.rule), drops(gone))


def refuse_mixed(rows: pa.Table) -> None:
    """Raises PipelineError where answers come from more than one policy: the pair would tell the models apart."""
    for column, what in (("model", "policy"), ("origin", "origin")):
        names = sorted({str(v) for v in rows[column].to_pylist()})
        if len(names) > 1:
            raise PipelineError(
                "OnPolicyPairs", f"answers of {len(names)} {column}s ({', '.join(names[:3])}…)", f"one {what}",
                "filter the rows, or set allow_mixed_policies=True (the audit will name the models as a shortcut)",
            )  # fmt: skip


def _columns(rows: pa.Table, scored: bool) -> dict[str, list[Any]]:
    names = ("candidate_id", "completion", "finish_reason")
    found = {n: rows[n].to_pylist() for n in names}
    found["score"] = rows["score"].to_pylist() if scored else [0.0] * rows.num_rows
    has_tokens = "completion_tokens" in rows.column_names
    found["tokens"] = rows["completion_tokens"].to_pylist() if has_tokens else [None] * rows.num_rows
    return found


def usable(
    columns: dict[str, list[Any]], group: Sequence[int], rule: OnPolicyPairs
) -> tuple[list[Answer], list[tuple[str, str, str]]]:
    """The answers of one prompt that may stand in a pair, best first (ties by id), and the drops of the others."""
    answers, gone, seen = [], [], set[str]()
    for row in sorted(group, key=lambda r: str(columns["candidate_id"][r])):
        cid, text, score = columns["candidate_id"][row], columns["completion"][row] or "", columns["score"][row]
        same = " ".join(text.split())
        reason = (
            "truncated" if columns["finish_reason"][row] not in WHOLE and not rule.allow_truncated
            else "empty" if not same
            else "no_verdict" if score is None or score != score
            else "duplicate_text" if same in seen
            else None
        )  # fmt: skip
        if reason:
            gone.append((cid, reason, ""))
            continue
        seen.add(same)
        tokens = columns["tokens"][row]
        answers.append(Answer(row, cid, text, float(score), len(text) if tokens is None else int(tokens)))
    return sorted(answers, key=lambda a: (-a.score, a.candidate_id)), gone


def mine(answers: Sequence[Answer], rule: OnPolicyPairs, prompt_id: str) -> tuple[list[tuple[Answer, Answer]], str]:
    """(chosen, rejected) pairs of one prompt's answers (best first), and why the answers in none are left."""
    if len(answers) < 2:
        return [], "no_partner"
    if rule.rule == "unjudged":
        return _unjudged(answers, rule, prompt_id), "not_chosen"
    right = sum(a.score >= rule.passing for a in answers)
    if answers[0].score == answers[-1].score or (rule.rule == "correct_wrong" and right in (0, len(answers))):
        alike = "all_right" if right == len(answers) else "all_wrong" if right == 0 else "all_tied"
        return [], alike
    found: list[tuple[Answer, Answer]] = []
    used: set[str] = set()
    why = "small_margin"
    for chosen in answers if rule.rule in ("correct_wrong", "all") or rule.per_prompt > 1 else answers[:1]:
        if len(found) == rule.per_prompt:
            break
        if rule.rule != "all" and chosen.candidate_id in used:
            continue
        lower = [a for a in answers if a.score < chosen.score and a.score <= chosen.score - rule.min_margin]
        if rule.rule == "correct_wrong":
            lower = [a for a in lower if chosen.score >= rule.passing > a.score]
        different = [a for a in lower if edit_share(chosen.text, a.text) >= rule.min_edit]
        why = "near_identical" if lower and not different else why
        free = different if rule.rule == "all" else [a for a in different if a.candidate_id not in used]
        order = _by_preference(free, chosen, answers, rule, prompt_id)
        for rejected in order if rule.rule == "all" else order[:1]:
            if len(found) < rule.per_prompt:
                found.append((chosen, rejected))
                used |= {chosen.candidate_id, rejected.candidate_id}
    return found, "not_chosen" if found else why


def _by_preference(
    partners: Sequence[Answer], chosen: Answer, answers: Sequence[Answer], rule: OnPolicyPairs, prompt_id: str
) -> list[Answer]:
    """Partners of a chosen answer, the one the rule wants first; those of matching length before the others."""
    scores = [a.score for a in answers]
    target = statistics.fmean(scores) - 2 * statistics.pstdev(scores)
    drawn = random.Random(content_id("pairs", rule.seed, prompt_id, chosen.candidate_id))
    lots = {a.candidate_id: drawn.random() for a in sorted(partners, key=lambda a: a.candidate_id)}

    def wanted(a: Answer) -> tuple[Any, ...]:
        apart = abs(a.tokens - chosen.tokens) > (rule.length_match or 0) * (a.tokens + chosen.tokens) / 2
        first = (rule.length_match is not None and apart,)
        if rule.rule == "best_random":
            return (*first, lots[a.candidate_id])
        if rule.rule == "best_sigma":
            return (*first, abs(a.score - target), a.candidate_id)
        return (*first, a.score, a.candidate_id)

    return sorted(partners, key=wanted)


def _unjudged(answers: Sequence[Answer], rule: OnPolicyPairs, prompt_id: str) -> list[tuple[Answer, Answer]]:
    """Pairs of two different answers in an order drawn by seed; which is called chosen means nothing yet."""
    drawn = random.Random(content_id("unjudged", rule.seed, prompt_id))
    left = drawn.sample(sorted(answers, key=lambda a: a.candidate_id), len(answers))
    found: list[tuple[Answer, Answer]] = []
    while len(left) > 1 and len(found) < rule.per_prompt:
        first = left.pop()
        other = next((a for a in left if edit_share(first.text, a.text) >= rule.min_edit), None)
        if other is not None:
            left.remove(other)
            found.append((first, other))
    return found


def edit_share(a: str, b: str) -> float:
    """Levenshtein distance of two texts as a share of the longer, in words: "a b c" against "a x c" is 1/3.

    In characters where a text has no two words: single words, and scripts that are written without spaces.
    """
    words = a.split(), b.split()
    return float(Levenshtein.normalized_distance(*(words if min(map(len, words)) > 1 else (a, b))))


def pair_table(rows: pa.Table, pairs: Sequence[tuple[int, int]], kind: str) -> pa.Table:
    """Rows of schema.DPO for (chosen row, rejected row) pairs of scored candidates."""
    names = [n for n in PAIRED if n in rows.column_names]
    sides = [rows.select(names).take(pa.array([p[i] for p in pairs], pa.int64())).to_pylist() for i in (0, 1)]
    return pa.Table.from_pylist(
        [as_pair(c, r, kind, kind != "unjudged") for c, r in zip(*sides, strict=True)], schema=DPO
    )


def as_pair(chosen: dict[str, Any], rejected: dict[str, Any], kind: str, scored: bool) -> dict[str, Any]:
    """One row of schema.DPO from two candidates; scores are NaN where nobody judged."""
    scores = [s["score"] if scored and s.get("score") is not None else float("nan") for s in (chosen, rejected)]
    return {
        **{n: chosen.get(n) for n in ("prompt_id", "prompt", "source", "task", "tools")},
        "pair_id": pair_id(chosen["prompt_id"], chosen["candidate_id"], rejected["candidate_id"]),
        "chosen": [{"role": "assistant", "content": chosen["completion"]}],
        "rejected": [{"role": "assistant", "content": rejected["completion"]}],
        "chosen_score": scores[0], "rejected_score": scores[1], "margin": scores[0] - scores[1], "kind": kind,
        "chosen_id": chosen["candidate_id"], "rejected_id": rejected["candidate_id"],
        "chosen_model": chosen["model"], "rejected_model": rejected["model"],
    }  # fmt: skip
