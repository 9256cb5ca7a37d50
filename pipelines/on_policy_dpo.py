"""On-policy DPO: pairs from the policy's own answers, told apart by a reward, a reward model or a judge.

Method: sample K at temperature 1.0 from the model that will be trained, score every answer, pair the best with one
near two standard deviations below the mean (arXiv 2502.16825), or a right with a wrong one where answers are right or
wrong. Prompts the policy always or never solves make no pair; the next round samples from the new checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.judge import JudgePairs
from curation.pairs import OnPolicyPairs, Rule
from curation.rewards import reward_by_name
from curation.sample import Sample
from curation.score import Score
from curation.stage import Pipeline
from pipelines.models import EngineKind, engine_for


@dataclass(frozen=True)
class Settings:
    policy: str = "toy:base"  # model folder, Hub id, URL#MODEL of a server, toy:base or toy:teacher
    engine: EngineKind = "auto"  # what runs it: vLLM where installed with a GPU, else transformers
    reward: str = "math"  # exact, numeric, math, refusal, language, model:FOLDER, format:REGEX or module:function
    judge: str | None = None  # a model that compares pairs in both orders, instead of the reward
    rule: Rule = "correct_wrong"  # how pairs are chosen; best_sigma for rewards that are not right or wrong
    passing: float = 1.0  # a score that counts as right
    min_margin: float = 0.0  # least difference of the two scores
    per_prompt: int = 1  # pairs of one prompt at most
    length_match: float | None = None  # prefer partners whose lengths differ by less than this share
    mixed: bool = False  # pair answers of different models, as with imported ones
    k: int = 8  # answers per prompt
    temperature: float = 1.0  # 0 = greedy
    max_tokens: int = 512  # new tokens per answer
    seed: int = 0  # of the sampling
    imported: bool = False  # --prompts holds answers already
    api_key_env: str | None = None  # name of the environment variable with an endpoint's key


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    sampled: Pipeline = []
    if not s.imported:
        engine = engine_for(s.policy, s.engine, s.api_key_env)
        sampled = [Sample(engine, k=s.k, temperature=s.temperature, max_tokens=s.max_tokens, seed=s.seed)]
    if s.judge:
        pairs = OnPolicyPairs(rule="unjudged", per_prompt=s.per_prompt, allow_mixed_policies=s.mixed, seed=s.seed)
        return {"dpo": [*sampled, pairs, JudgePairs(engine_for(s.judge, s.engine, s.api_key_env))]}
    scored = [*sampled, Score(reward_by_name(s.reward))]
    pairs = OnPolicyPairs(
        rule=s.rule, min_margin=s.min_margin, passing=s.passing, per_prompt=s.per_prompt, length_match=s.length_match,
        allow_mixed_policies=s.mixed, seed=s.seed,
    )  # fmt: skip
    return {"scored": scored, "dpo": [*scored, pairs]}
