"""Models that score answers for the audit: a reward model, or what a policy has come to prefer to its reference.

A score has no scale of its own here; only differences between answers to one prompt are looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from curation.chat import encode_completions
from curation.errors import EngineError, InputError
from curation.reward_model import RewardModelScore, batches
from curation.schema import MESSAGES, Message
from curation.weights import hide_loading_bars, model_folder, model_identity

NO_SCORE = float("nan")
Prompts = Sequence[Sequence[Message]]


class Scorer(Protocol):
    """Gives every answer a number, higher where it is liked better, NaN where it could not judge."""

    def score(self, prompts: Prompts, completions: Sequence[str]) -> list[float]: ...


@dataclass(frozen=True)
class RewardModelScorer:
    """A trained reward model's own scores."""

    model: str  # folder or Hub id
    max_length: int = 4096

    def score(self, prompts: Prompts, completions: Sequence[str]) -> list[float]:
        reward = RewardModelScore(self.model, self.max_length)

        def judge(asked: Prompts, answers: Sequence[str]) -> list[float]:
            columns = [pa.array([list(p) for p in asked], MESSAGES), pa.array(answers, pa.string())]
            return [verdict.score for verdict in reward(pa.table(columns, ["prompt", "completion"]))]

        return one_by_one_where_refused(judge, prompts, completions)


@dataclass(frozen=True)
class ImplicitReward:
    """β · (log p of the policy − log p of its reference): the reward that preference training left in a policy
    (Rafailov et al. 2023, arXiv 2305.18290). One of the two models is in memory at a time."""

    policy: str  # folder or Hub id
    reference: str
    beta: float = 0.1
    max_length: int = 4096

    def score(self, prompts: Prompts, completions: Sequence[str]) -> list[float]:
        policy, reference = (self._logps(m, prompts, completions) for m in (self.policy, self.reference))
        return [self.beta * (p - r) for p, r in zip(policy, reference, strict=True)]

    def _logps(self, model: str, prompts: Prompts, completions: Sequence[str]) -> list[float]:
        loaded = _load(model_identity(model), model)

        def judge(asked: Prompts, answers: Sequence[str]) -> list[float]:
            return completion_logps(*loaded, asked, answers, self.max_length)

        return one_by_one_where_refused(judge, prompts, completions)


def one_by_one_where_refused(
    judge: Callable[[Prompts, Sequence[str]], list[float]], prompts: Prompts, completions: Sequence[str]
) -> list[float]:
    """`judge` of all; NaN for a conversation that the chat template refuses. Raises InputError without a template."""
    try:
        return judge(prompts, completions) if completions else []
    except InputError as e:
        if e.where == "tokenizer":
            raise
    if len(completions) == 1:
        return [NO_SCORE]
    half = len(completions) // 2
    parts = (slice(0, half), slice(half, None))
    return [s for part in parts for s in one_by_one_where_refused(judge, prompts[part], completions[part])]


def completion_logps(
    tokenizer: Any, model: Any, prompts: Prompts, completions: Sequence[str], max_length: int, batch_tokens: int = 4096
) -> list[float]:
    """log p of every completion with its end of turn (nats), as trainers count it; NaN where it is longer than
    `max_length` tokens with its prompt."""
    turns = [[{"role": "assistant", "content": text}] for text in completions]
    encoded = encode_completions(tokenizer, prompts, turns)
    lengths = np.array([len(ids) for ids, _ in encoded], int)
    fits = np.flatnonzero(lengths <= max_length)
    found = np.full(len(encoded), NO_SCORE)
    for part in batches(fits[np.argsort(-lengths[fits], kind="stable")], lengths, batch_tokens):
        found[part] = _logps(model, [encoded[i] for i in part])
    return [float(value) for value in found]


def _logps(model: Any, encoded: Sequence[tuple[Sequence[int], int]]) -> np.ndarray:
    """Of one right-padded batch of (ids, where the completion begins). Padding is never seen: attention is causal."""
    import torch

    rows = [torch.tensor(ids) for ids, _ in encoded]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
    first = torch.tensor([max(1, start) for _, start in encoded], device=model.device)
    end = torch.tensor([len(row) for row in rows], device=model.device)
    target = torch.arange(int(first.min()), ids.shape[1], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=target - 1).logits.float()
        found = logits.gather(-1, ids[:, target, None]).squeeze(-1) - logits.logsumexp(-1)
        counts = (target >= first[:, None]) & (target < end[:, None])
        summed: np.ndarray = found.double().masked_fill(~counts, 0.0).sum(-1).cpu().numpy()
    return summed


@lru_cache(maxsize=1)
def _load(identity: str, name: str) -> tuple[Any, Any]:
    """Tokenizer and causal language model, weights as they are stored. Raises EngineError."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder(name)
    hide_loading_bars()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as e:
        first = str(e).strip().split("\n")[0][:200]
        raise EngineError(f"model {name}", first, "a causal language model", "check the folder") from e
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
