"""Best-of-K rejection sampling: K answers of the policy per prompt, the best one that is good enough becomes SFT data.

Method: sample K at temperature 1.0, score each, keep the best untruncated answer with score ≥ the floor (Llama 3
report, RAFT). An absolute floor, not merely the best of a bad group. Prompts in a pass-rate band can be chosen:
those the policy always or never solves teach little.
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
    policy: str = "toy:base"  # model folder, Hub id, URL#MODEL of a server, toy:base or toy:teacher
    engine: EngineKind = "auto"  # what runs it: vLLM where installed with a GPU, else transformers
    reward: str = "math"  # exact, numeric, math, format:REGEX or module:function
    k: int = 8  # answers per prompt
    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0  # nucleus; 1 = off
    max_tokens: int = 512  # new tokens per answer
    min_score: float = 1.0  # floor: the best of a bad group is still bad
    min_pass_rate: float = 0.0  # leave out prompts solved less often than this
    max_pass_rate: float = 1.0  # … or more often
    seed: int = 0  # of the sampling
    imported: bool = False  # --prompts holds answers already: score and choose, sample nothing
    api_key_env: str | None = None  # name of the environment variable with an endpoint's key


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    sample = [] if s.imported else [_sample(s)]
    scored = [*sample, Score(reward_by_name(s.reward))]
    band = (s.min_pass_rate, s.max_pass_rate)
    best = BestOfK(min_score=s.min_score, pass_rate=None if band == (0.0, 1.0) else band)
    return {"scored": scored, "sft": [*scored, best, ToMessages()]}


def _sample(s: Settings) -> Sample:
    engine = engine_for(s.policy, s.engine, s.api_key_env)
    return Sample(
        engine, k=s.k, temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_tokens, seed=s.seed, origin="policy"
    )
