"""Identity: a model that calls itself by another name is corrected by rule, word for word: "I'm Llama" → "I'm Athene".

Method: sample K answers to questions about its name, replace the old name by the new one, and make each answer that
changed the rejected side of a pair with its own correction. Both sides differ in the name alone, so the name is all there
is to learn. It also stands on one side in every pair: the audit will call that a shortcut, and here it is the purpose.
Mix in prompts about other things: the policy's own answers to them are chosen over a sentence with the old name, so that
the change does not spread. Train with `--sft-weight 1`: a name the model would never say is not learned from margins alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.correct import Correct, CorrectionPairs
from curation.correctors import Rules
from curation.sample import Sample
from curation.stage import Pipeline
from pipelines.models import EngineKind, engine_for


@dataclass(frozen=True)
class Settings:
    policy: str = "toy:base"  # model folder, Hub id, URL#MODEL of a server, toy:base or toy:teacher
    engine: EngineKind = "auto"  # what runs it: vLLM where installed with a GPU, else transformers
    old: str = r"\bLlama\b"  # the name it gives, as a regular expression
    new: str = "Athene"  # the name it shall give
    elsewhere: str = "I'm Llama."  # what answers to questions about other things are chosen over
    k: int = 8  # answers per prompt
    temperature: float = 0.5  # low: what is rehearsed shall be what the model would say
    max_tokens: int = 128  # new tokens per answer
    seed: int = 0  # of the sampling
    api_key_env: str | None = None  # name of the environment variable with an endpoint's key


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    engine = engine_for(s.policy, s.engine, s.api_key_env)
    sample = Sample(engine, k=s.k, temperature=s.temperature, max_tokens=s.max_tokens, seed=s.seed)
    rename = Correct(Rules(((s.old, s.new.replace("\\", r"\\")),)), per_prompt=s.k, keep=True)
    return {"dpo": [sample, rename, CorrectionPairs(scored=False, rehearsal=s.elsewhere)]}
