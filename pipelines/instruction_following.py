"""Instruction following: of the policy's answers, one that has the form asked for is chosen over one that has not.

Method: instructions whose form a program can check; sample K answers, check each, pair a right with a wrong one of
matching length (so that length is not what is learned). `--reward module:function` takes any checker.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.stage import Pipeline
from pipelines import on_policy_dpo


@dataclass(frozen=True)
class Settings(on_policy_dpo.Settings):
    reward: str = "exact"  # exact, numeric, format:REGEX, or module:function
    length_match: float | None = 0.2  # prefer partners whose lengths differ by less than this share


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    return on_policy_dpo.pipelines(s)
