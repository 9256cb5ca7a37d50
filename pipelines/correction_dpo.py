"""Correction DPO: the policy's own wrong answer as rejected, its minimal correction as chosen.

Method: sample one answer, score it, let a teacher name the faults of the wrong ones and mend those alone (CLAIR, arXiv
2408.06266), score the corrections too. A pair is made only where the correction scores higher, changes between 2 and 50
per cent of the words and does not speak of itself. Corrections by people are imported (`--imported`): the same rules hold,
but for the score. Train with `--loss apo_zero` where the teacher is much stronger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from curation.correct import Correct, CorrectionPairs
from curation.correctors import Corrector, TeacherAnswer, TeacherRevision
from curation.rewards import reward_by_name
from curation.sample import Sample
from curation.score import Score
from curation.stage import Pipeline
from pipelines.models import EngineKind, engine_for


@dataclass(frozen=True)
class Settings:
    policy: str = "toy:base"  # the model whose answers are corrected
    teacher: str = "toy:teacher"  # the model that corrects
    corrector: Literal["auto", "revise", "answer"] = "auto"  # critique and revise, or answer anew; toy models answer
    engine: EngineKind = "auto"  # what runs both: vLLM where installed with a GPU, else transformers
    reward: str = "math"  # exact, numeric, math, refusal, language, model:FOLDER, format:REGEX or module:function
    passing: float = 1.0  # an answer that reaches this score needs no correction
    least_edit: float = 0.02  # share of words a correction must change
    most_edit: float = 0.5  # … and may change
    temperature: float = 1.0  # of the policy
    max_tokens: int = 512  # new tokens per answer
    seed: int = 0  # of the sampling
    imported: bool = False  # --prompts holds answers with corrections: pair those, ask no model
    api_key_env: str | None = None  # name of the environment variable with an endpoint's key


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    pairs = CorrectionPairs(edit=(s.least_edit, s.most_edit), scored=not s.imported)
    if s.imported:
        return {"dpo": [pairs]}
    policy = engine_for(s.policy, s.engine, s.api_key_env)
    reward = reward_by_name(s.reward)
    sample = Sample(policy, k=1, temperature=s.temperature, max_tokens=s.max_tokens, seed=s.seed)
    scored = [sample, Score(reward), Correct(_corrector(s), passing=s.passing), Score(reward)]
    return {"scored": scored, "dpo": [*scored, pairs]}


def _corrector(s: Settings) -> Corrector:
    engine = engine_for(s.teacher, s.engine, s.api_key_env)
    if s.corrector == "answer" or (s.corrector == "auto" and s.teacher.startswith("toy:")):
        return TeacherAnswer(engine, max_tokens=s.max_tokens)
    return TeacherRevision(engine, max_tokens=s.max_tokens)
