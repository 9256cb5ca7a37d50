"""Score: a number per candidate, or NaN with its reason. The same rewards serve curation, evaluation and RL."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import pyarrow as pa

from curation.schema import SCORED
from curation.stage import Outcome, Stage

NO_VERDICT = float("nan")
NO_PARTS: Mapping[str, float] = {}


class Verdict(NamedTuple):
    """A score with its reason. NaN: could not judge, for no fault of the answer (a crashed grader, a missing truth).

    An answer in which nothing to judge is found is judged: 0, with the verdict "no_answer".
    """

    score: float
    verdict: str
    parts: Mapping[str, float] = NO_PARTS  # scores of the parts of a combination, by name


class Reward(Protocol):
    """A frozen dataclass that is called on scored or candidate rows and gives one verdict per row, in their order."""

    @property
    def name(self) -> str: ...

    def __call__(self, rows: pa.Table) -> list[Verdict]: ...


@dataclass(frozen=True)
class Score(Stage):
    """Judge every candidate with `reward`; writes `score`, `scores` (each part by name) and `verdict`."""

    reads: ClassVar = ("candidate_id", "completion")
    writes: ClassVar = ("score", "scores", "verdict")

    reward: Reward

    def __call__(self, rows: pa.Table) -> Outcome:
        verdicts = self.reward(rows)
        assert len(verdicts) == rows.num_rows, f"{self.reward} gave {len(verdicts)} verdicts for {rows.num_rows} rows"
        parts = [{self.reward.name: v.score, **v.parts} for v in verdicts]
        columns: dict[str, Any] = {
            "score": [v.score for v in verdicts],
            "scores": [sorted(p.items()) for p in parts],
            "verdict": [v.verdict for v in verdicts],
        }
        for name, values in columns.items():
            made = pa.array(values, SCORED.field(name).type, from_pandas=False)
            at = rows.column_names.index(name) if name in rows.column_names else None
            rows = rows.append_column(name, made) if at is None else rows.set_column(at, name, made)
        missing = sum(math.isnan(v.score) for v in verdicts)
        return Outcome(rows, counters={"no_verdict": missing} if missing else {})
