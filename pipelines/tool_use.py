"""Tool use without the manual: a teacher sees the tool's description, the student learns to call it unprompted.

Method: context distillation (Askell et al. 2021). The teacher answers with the tool description in its prompt;
the shard leaves the description out, so that the call moves from the prompt into the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.best_of_k import BestOfK
from curation.messages import ToMessages
from curation.rewards import reward_by_name
from curation.sample import Sample
from curation.score import Score
from curation.stage import Pipeline
from pipelines.models import EngineKind, engine_for


@dataclass(frozen=True)
class Settings:
    teacher: str = "toy:teacher"  # model folder, Hub id, URL#MODEL of a server, toy:base or toy:teacher
    engine: EngineKind = "auto"  # what runs it: vLLM where installed with a GPU, else transformers
    reward: str = "exact"  # checks the call against the truth
    k: int = 1  # answers per prompt; the best is kept
    temperature: float = 0.7  # 0 = greedy
    max_tokens: int = 256  # new tokens per answer
    hidden_system: str | None = None  # a system prompt for the teacher that the student shall not need
    seed: int = 0  # of the sampling
    api_key_env: str | None = None  # name of the environment variable with an endpoint's key


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    engine = engine_for(s.teacher, s.engine, s.api_key_env)
    sample = Sample(
        engine, k=s.k, temperature=s.temperature, max_tokens=s.max_tokens, seed=s.seed, origin="teacher",
        hidden_system=s.hidden_system, hidden_tools=True,
    )  # fmt: skip
    return {"sft": [sample, Score(reward_by_name(s.reward)), BestOfK(min_score=1.0), ToMessages()]}
