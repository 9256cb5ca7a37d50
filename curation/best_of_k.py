"""BestOfK: rejection sampling. Of each prompt's answers the best, if it is good enough and whole."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import pandas as pd
import pyarrow as pa

from curation.errors import PipelineError
from curation.stage import Outcome, Stage, split


@dataclass(frozen=True)
class BestOfK(Stage):
    """Keep the best `keep` answers of each prompt.

    Barred are answers that were cut off (`length`, `abort`, `repetition`, `content_filter`), empty ones, those with
    no verdict and those below the floor. `pass_rate` = (low, high), both inclusive, keeps prompts whose share of
    answers that reach `passing` lies between; answers without verdict do not count in it. Ties go to the
    shorter answer (fewer tokens) or to the smallest id. Without a `score` column and with min_score=None it keeps
    the first whole answers by id: a filter for distillation without a truth.
    """

    reads: ClassVar = ("prompt_id", "candidate_id", "completion", "finish_reason")

    min_score: float | None = None  # the floor, inclusive
    pass_rate: tuple[float, float] | None = None
    passing: float = 1.0  # a score that counts as solved
    ties: Literal["smallest_id", "shortest"] = "smallest_id"
    keep: int = 1
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        band = self.pass_rate
        if self.keep < 1 or (band is not None and not 0 <= band[0] <= band[1] <= 1):
            raise PipelineError(
                "BestOfK",
                f"keep={self.keep} pass_rate={band}",
                "keep ≥ 1 and 0 ≤ low ≤ high ≤ 1",
                "correct the setting",
            )

    def __call__(self, rows: pa.Table) -> Outcome:
        names = ["prompt_id", "candidate_id", "completion", "finish_reason", "score", "completion_tokens"]
        frame = rows.select([n for n in names if n in rows.column_names]).to_pandas()
        scored = "score" in frame
        if not scored:
            if self.min_score is not None or self.pass_rate is not None:
                raise PipelineError("BestOfK", "no column score", "scored rows", "put a Score stage before it")
            frame["score"] = 0.0
        if self.ties == "shortest" and "completion_tokens" not in frame:
            raise PipelineError("BestOfK", "no column completion_tokens", "token counts", 'set ties="smallest_id"')
        reasons = bar(frame, self)
        best = choose(frame[reasons.isna()], self.keep, self.ties)
        reasons[reasons.isna() & ~frame.index.isin(best)] = "not_best"
        return split(rows, [None if pd.isna(r) else r for r in reasons], self.key)


def bar(frame: pd.DataFrame, rule: BestOfK) -> pd.Series:
    """Why a row may not be chosen, whatever the others are; missing where it may. The first reason found counts."""
    reasons = pd.Series(index=frame.index, dtype=object)

    def mark(where: pd.Series, reason: str) -> None:
        reasons.loc[where & reasons.isna()] = reason

    if not rule.allow_truncated:
        mark(~frame["finish_reason"].isin(["stop", "tool_calls"]), "truncated")
    mark(frame["completion"].fillna("").str.strip() == "", "empty")
    mark(frame["score"].isna(), "no_verdict")
    if rule.pass_rate is not None:
        solved = (frame["score"] >= rule.passing).astype(float).where(frame["score"].notna())
        rate = solved.groupby(frame["prompt_id"]).transform("mean")
        mark(~rate.between(*rule.pass_rate), "pass_rate_outside")
    if rule.min_score is not None:
        mark(frame["score"] < rule.min_score, "below_floor")
    return reasons


def choose(frame: pd.DataFrame, keep: int, ties: str) -> pd.Index:
    """Index of each prompt's best rows: highest score, then by the tie rule, then smallest id. NaN never gets here."""
    by = ["score", *(["completion_tokens"] if ties == "shortest" else []), "candidate_id"]
    ordered = frame.sort_values(by, ascending=[False] + [True] * (len(by) - 1), kind="stable")
    return ordered.groupby("prompt_id", sort=False).head(keep).index
