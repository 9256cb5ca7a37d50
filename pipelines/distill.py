"""Distillation: one answer of a teacher per prompt becomes SFT data, its reasoning left out.

Method: sample K = 1 from the teacher, keep its thinking apart from its answer, drop truncated answers and, where
the prompts carry a truth, wrong ones (sequence-level distillation, Kim & Rush 2016, with a correctness filter).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.best_of_k import BestOfK
from curation.messages import ToMessages
from curation.rewards import reward_by_name
from curation.sample import Sample
from curation.score import Score
from curation.stage import Pipeline, Stage
from pipelines.models import EngineKind, engine_for


@dataclass(frozen=True)
class Settings:
    teacher: str = "toy:teacher"  # model folder, Hub id, URL#MODEL of a server, toy:base or toy:teacher
    engine: EngineKind = "auto"  # what runs it: vLLM where installed with a GPU, else transformers
    reward: str = "math"  # checks answers against the truth; "none" keeps all that are whole
    temperature: float = 0.7  # 0 = greedy
    top_p: float = 0.95  # nucleus; 1 = off
    max_tokens: int = 512  # new tokens per answer, reasoning included
    seed: int = 0  # of the sampling
    api_key_env: str | None = None  # name of the environment variable with an endpoint's key


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    return {"sft": [*taught(s), ToMessages()]}


def taught(s: Settings) -> list[Stage]:
    """The teacher's whole and, where there is a truth, right answers; shared with the `reasoning` recipe."""
    engine = engine_for(s.teacher, s.engine, s.api_key_env)
    sample = Sample(
        engine, k=1, temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_tokens, seed=s.seed, origin="teacher"
    )
    if s.reward == "none":
        return [sample, BestOfK(min_score=None)]
    return [sample, Score(reward_by_name(s.reward)), BestOfK(min_score=1.0)]
