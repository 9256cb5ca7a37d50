"""What models add to `thresher audit`: token ids, embeddings, and a scorer that is asked about the findings."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from curation.errors import InputError
from pipelines.models import model_path

if TYPE_CHECKING:
    from curation.audit import Audit
    from curation.audit.corpus import Corpus


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags; none of them is needed."""
    group = parser.add_argument_group("with a model")
    group.add_argument("--tokenizer", metavar="T", help="folder or Hub id: audit token ids too, as the loss sees them")
    group.add_argument(
        "--max-length", type=int, default=1024, metavar="N", help="tokens a trainer takes (default: 1024)"
    )
    group.add_argument("--embed", metavar="MODEL", help="folder or Hub id: probe its embeddings of the answers too")
    group.add_argument("--reward-model", metavar="FOLDER", help="ask this reward model what the findings are worth")
    group.add_argument("--policy", metavar="FOLDER", help="ask this trained policy, against its --reference")
    group.add_argument("--reference", metavar="FOLDER", help="what the policy was trained from")


def check_model_flags(given: argparse.Namespace) -> None:
    """Raises InputError for flags that do not go together."""
    if (given.policy is None) != (given.reference is None):
        raise InputError("audit", "one of --policy and --reference", "both or none", "name the other too")
    if given.policy and given.reward_model:
        raise InputError("audit", "--reward-model and --policy", "one scorer", "run the audit once for each")
    if given.max_length < 1:
        raise InputError("audit", f"--max-length {given.max_length}", "1 or more", "say what a trainer takes")


def from_models(given: argparse.Namespace, corpus: "Corpus") -> dict[str, Any]:
    """Keyword arguments of `audit`: `more` features and `embeddings`. Raises InputError, EngineError."""
    found: dict[str, Any] = {}
    if given.tokenizer:
        from curation.audit.tokens import token_features

        found["more"] = token_features(corpus, model_path(given.tokenizer), given.max_length)
    if given.embed:
        from curation.audit.embed import embeddings

        found["embeddings"] = embeddings(corpus, model_path(given.embed))
    return found


def ask_scorer(given: argparse.Namespace, corpus: "Corpus", done: "Audit") -> "Audit":
    """The audit with what the scorer, if one was named, makes of its gravest findings. Raises InputError, EngineError."""
    if not (given.reward_model or given.policy):
        return done
    from curation.audit.counterfactual import counterfactuals, with_counterfactuals
    from curation.audit.scorers import ImplicitReward, RewardModelScorer, Scorer

    scorer: Scorer
    if given.reward_model:
        scorer = RewardModelScorer(model_path(given.reward_model))
    else:
        scorer = ImplicitReward(model_path(given.policy), model_path(given.reference))
    return replace(done, findings=with_counterfactuals(done.findings, counterfactuals(done.findings, corpus, scorer)))
