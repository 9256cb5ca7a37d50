"""From a model that answers at once to one that reasons: distil the teacher's visible steps together with its answer.

Method: as `distill`, but the reasoning goes into the student's answer between <think> and </think> (the recipe of
the R1 distillations: SFT on traces whose final answer is right).
"""

from collections.abc import Mapping

from curation.messages import ToMessages
from curation.stage import Pipeline
from pipelines import distill

Settings = distill.Settings


def pipelines(s: distill.Settings) -> Mapping[str, Pipeline]:
    return {"sft": [*distill.taught(s), ToMessages(include_reasoning=True)]}
