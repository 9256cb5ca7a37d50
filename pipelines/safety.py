"""Safety: refuse what is harmful and only that.

Method: prompts labelled "refuse" (unsafe) or "comply" (safe) as ground truth, both kinds in one set: a set of refusals
alone teaches to refuse everything (XSTest, arXiv 2308.01263). Sample K answers, see which refuse, and choose one that
does what its prompt's label says over one that does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.stage import Pipeline
from pipelines import on_policy_dpo


@dataclass(frozen=True)
class Settings(on_policy_dpo.Settings):
    reward: str = "refusal"  # refusal compares with the label; model:FOLDER for a trained safety judge


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    return on_policy_dpo.pipelines(s)
