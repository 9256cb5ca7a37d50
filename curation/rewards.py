"""Rewards that need no model: exact and numeric answers, format, any Python function, weighted sums."""

import importlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pyarrow as pa

from curation.answers import as_number, final_answer, last_number
from curation.errors import InputError, PipelineError
from curation.score import NO_VERDICT, Reward, Verdict

NO_TRUTH = Verdict(NO_VERDICT, "no_truth")


@dataclass(frozen=True)
class ExactMatch:
    """1 if the completion is the ground truth, character for character (outer white space aside unless `strict`)."""

    strict: bool = False
    ignore_case: bool = False

    @property
    def name(self) -> str:
        return "exact"

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        return [self._judge(c, t) for c, t in _pairs(rows)]

    def _judge(self, completion: str, truth: str | None) -> Verdict:
        if truth is None:
            return NO_TRUTH
        return _passed(self._same(completion) == self._same(truth))

    def _same(self, text: str) -> str:
        text = text if self.strict else text.strip()
        return text.casefold() if self.ignore_case else text


@dataclass(frozen=True)
class NumericMatch:
    """1 if the completion's final number is the truth's, within `tolerance` (absolute or relative, whichever is wider)."""

    tolerance: float = 0.0

    @property
    def name(self) -> str:
        return "numeric"

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        return [self._judge(c, t) for c, t in _pairs(rows)]

    def _judge(self, completion: str, truth: str | None) -> Verdict:
        wanted = as_number(final_answer(truth) or truth) if truth is not None else None
        if wanted is None:
            return NO_TRUTH
        found = number_in(completion)
        if found is None:
            return Verdict(0.0, "no_answer")
        scale = max(Fraction(1), abs(wanted))
        return _passed(abs(found - wanted) <= Fraction(self.tolerance) * scale)


def number_in(completion: str) -> Fraction | None:
    """The final number of a completion: of its marked answer if one is marked, else the last one in it."""
    marked = final_answer(completion)
    if marked is not None:
        whole = as_number(marked)
        if whole is not None:
            return whole
        inside = last_number(marked)
        return as_number(inside) if inside else None
    last = last_number(completion)
    return as_number(last) if last else None


@dataclass(frozen=True)
class FormatCheck:
    """1 if the completion has the wanted form: it matches `pattern` whole, is JSON, or holds the `tags` in order."""

    pattern: str | None = None
    is_json: bool = False
    tags: tuple[str, ...] = ()
    longest: int = 20_000  # characters; a longer completion fails, and no regex is run on it

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern or "")
        except re.error as e:
            raise PipelineError(
                "FormatCheck", f"pattern {self.pattern!r} ({e})", "a regular expression", "mend it"
            ) from e

    @property
    def name(self) -> str:
        return "format"

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        return [self._judge(c) for c in rows["completion"].to_pylist()]

    def _judge(self, completion: str) -> Verdict:
        if len(completion) > self.longest:
            return Verdict(0.0, "too_long")
        if self.pattern is not None and not re.fullmatch(self.pattern, completion, re.DOTALL):
            return Verdict(0.0, "no_match")
        if self.is_json and not _is_json(completion):
            return Verdict(0.0, "no_json")
        at = 0
        for tag in self.tags:
            at = completion.find(tag, at) + len(tag)
            if at < len(tag):
                return Verdict(0.0, f"no {tag}")
        return Verdict(1.0, "pass")


@dataclass(frozen=True)
class FunctionReward:
    """Any function defined in a module: `function(row) -> float | bool | None | (score, verdict)`.

    `row` is the row as a dict. None is no verdict. An exception is no verdict too, with its type as reason: a fault of
    the grader must not become a low score.
    """

    function: Callable[[Mapping[str, Any]], Any]

    @property
    def name(self) -> str:
        return self.function.__name__

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        return [self._judge(row) for row in rows.to_pylist()]

    def _judge(self, row: Mapping[str, Any]) -> Verdict:
        try:
            found = self.function(row)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, AssertionError) as e:
            return Verdict(NO_VERDICT, f"crashed: {type(e).__name__}")
        score, verdict = found if isinstance(found, tuple) else (found, None)
        if score is None or math.isnan(float(score)):
            return Verdict(NO_VERDICT, verdict or "no_verdict")
        return Verdict(float(score), verdict or ("pass" if float(score) > 0 else "fail"))


@dataclass(frozen=True)
class WeightedSum:
    """Σ weight · score over the parts; no verdict where any part has none. Each part is a column in `scores`."""

    rewards: tuple[Reward, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        names = [r.name for r in self.rewards]
        if len(self.rewards) != len(self.weights) or not names or len(set(names)) != len(names):
            raise PipelineError(
                "WeightedSum", f"{len(self.weights)} weights for rewards {', '.join(names)}",
                "one weight per reward, rewards of different names", "correct the lists",
            )  # fmt: skip

    @property
    def name(self) -> str:
        return "sum"

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        return [self._combine(found) for found in zip(*(reward(rows) for reward in self.rewards), strict=True)]

    def _combine(self, found: tuple[Verdict, ...]) -> Verdict:
        parts: dict[str, float] = {}
        for reward, verdict in zip(self.rewards, found, strict=True):
            parts |= {reward.name: verdict.score, **verdict.parts}
        silent = next((v.verdict for v in found if math.isnan(v.score)), None)
        if silent is not None:
            return Verdict(NO_VERDICT, silent, parts)
        total = sum(w * v.score for w, v in zip(self.weights, found, strict=True))
        return Verdict(total, " ".join(v.verdict for v in found), parts)


REWARDS = "exact, numeric, math, refusal, language, format:REGEX, model:FOLDER (a reward model) or module:function"


def reward_by_name(name: str) -> Reward:
    """The reward a command names (see REWARDS). Raises InputError."""
    if name == "refusal":
        from curation.refusals import RefusalMatch

        return RefusalMatch()
    if name == "language":
        from curation.languages import LanguageMatch

        return LanguageMatch()
    if name.startswith("model:"):
        from curation.reward_model import RewardModelScore

        return RewardModelScore(name.removeprefix("model:"))
    if name == "math":
        from curation.math_reward import MathReward

        return MathReward()
    if name in ("exact", "numeric"):
        return ExactMatch() if name == "exact" else NumericMatch()
    if name.startswith("format:"):
        return FormatCheck(pattern=name.removeprefix("format:"))
    module, _, function = name.partition(":")
    expected = REWARDS
    if not function:
        raise InputError("reward", name, expected, "write one of these")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as e:
        raise InputError("reward", f"{name} ({e})", expected, "check that the module can be imported here") from e
    return FunctionReward(found)


def _pairs(rows: pa.Table) -> list[tuple[str, str | None]]:
    """(completion, ground truth) of every row."""
    truths = rows["ground_truth"].to_pylist() if "ground_truth" in rows.column_names else [None] * rows.num_rows
    return list(zip(rows["completion"].to_pylist(), truths, strict=True))


def _passed(same: bool) -> Verdict:
    return Verdict(1.0, "pass") if same else Verdict(0.0, "fail")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
