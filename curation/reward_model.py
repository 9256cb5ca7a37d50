"""RewardModelScore: a trained reward model as a reward, in this process."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from curation.chat import encode_completions
from curation.errors import EngineError
from curation.score import NO_VERDICT, Verdict
from curation.weights import hide_loading_bars, model_folder, model_identity


@dataclass(frozen=True)
class RewardModelScore:
    """The number a sequence classifier with one output gives to prompt and completion: no scale of its own, only order.

    Read at the last token of each conversation, found by length, as `thresher train reward` trains it. What is longer
    than `max_length` tokens has no verdict: a score of a part would be of another answer.
    """

    model: str  # folder or Hub id
    max_length: int = 4096
    batch_tokens: int = 16384  # tokens of one forward pass, padding included

    @property
    def name(self) -> str:
        return "reward_model"

    def identity(self) -> str:
        return model_identity(self.model)

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        tokenizer, model = _load(self.identity(), self.model)
        completions = [[{"role": "assistant", "content": c or ""}] for c in rows["completion"].to_pylist()]
        tools = rows["tools"].to_pylist() if "tools" in rows.column_names else None
        encoded = [ids for ids, _ in encode_completions(tokenizer, rows["prompt"].to_pylist(), completions, tools)]
        lengths = np.array([len(ids) for ids in encoded], dtype=int)
        fits = np.flatnonzero(lengths <= self.max_length)
        scores = np.full(len(encoded), NO_VERDICT)
        for part in batches(fits[np.argsort(-lengths[fits], kind="stable")], lengths, self.batch_tokens):
            scores[part] = _scores(model, [encoded[i] for i in part])
        return [
            Verdict(float(s), "scored" if s == s else f"too_long: {n} tokens")
            for s, n in zip(scores, lengths, strict=True)
        ]


def batches(order: np.ndarray, lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Row numbers, longest first, cut so that rows × longest stays within `budget` (one row at least)."""
    found, at = [], 0
    while at < len(order):
        rows = max(1, budget // int(lengths[order[at]]))
        found.append(order[at : at + rows])
        at += rows
    return found


def _scores(model: Any, encoded: list[list[int]]) -> np.ndarray:
    """Scores of one right-padded batch. Padding is never seen: attention is causal and the score is read before it."""
    import torch

    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(e) for e in encoded], batch_first=True).to(model.device)
    last = torch.tensor([len(e) - 1 for e in encoded], device=model.device)
    with torch.no_grad():
        hidden = getattr(model, model.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state
        found: np.ndarray = model.score(hidden[torch.arange(len(ids)), last])[:, 0].double().cpu().numpy()
    return found


@lru_cache(maxsize=2)
def _load(identity: str, name: str) -> tuple[Any, Any]:
    """Tokenizer and model, weights as they are stored. Raises EngineError for a model without a scalar head."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = model_folder(name)
    hide_loading_bars()
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="auto", trust_remote_code=False, use_safetensors=True
    )
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise EngineError(
            f"model {name}", f"{model.config.num_labels} outputs", "a reward model with one output",
            "make one with `thresher train reward`",
        )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False), model.to(device).eval()
