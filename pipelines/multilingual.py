"""Multilingual: answers in the language of the question, learned from the policy's own answers in right and wrong ones.

Method: prompts in several languages; sample K answers; an answer that is right and in the prompt's language is chosen over
one that is not. Both come from the same policy, so neither style nor length gives the language away. For open questions
`--reward language` compares languages alone; a truth (`--reward exact`) also asks for the right answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from curation.stage import Pipeline
from pipelines import on_policy_dpo


@dataclass(frozen=True)
class Settings(on_policy_dpo.Settings):
    reward: str = "exact"  # exact for prompts with a truth; language for open ones


def pipelines(s: Settings) -> Mapping[str, Pipeline]:
    return on_policy_dpo.pipelines(s)
