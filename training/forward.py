"""A model run over a packed row: hidden states and token losses at the positions that matter, nothing else computed."""

from typing import Any

import torch
from torch import nn

from training.attention import head_is_all, use_document_attention
from training.data import MicroBatch
from training.last_layer import compute_only_what_is_read
from training.losses import Statistics, token_nll, weighted_nll
from training.models import inner, refuse_virtual_tokens


class Forward(nn.Module):
    """A transformers model (or PEFT's wrapping of one) that takes a MicroBatch.

    Where documents cannot share a row (`packs` is False) they are laid out as a right-padded rectangle instead; then
    a row must hold whole documents: no suffix behind a shared prefix.
    """

    def __init__(self, model: Any, has_vocabulary: bool = True) -> None:
        super().__init__()
        refuse_virtual_tokens(model)
        self.model = model
        self.packs = use_document_attention(inner(model))
        self.reads = self.packs and compute_only_what_is_read(inner(model))
        self.plain_head = has_vocabulary and head_is_all(inner(model))

    def hidden(self, rows: MicroBatch, at: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Hidden states (N, H) at the flat positions `at` (N,); `read` are the same positions, each once."""
        causal = inner(self.model)
        body = getattr(causal, causal.base_model_prefix)
        if self.packs:
            only = {"read": read} if self.reads else {}
            return body(**packed(rows), **only).last_hidden_state[0, at]
        ids, real = unpacked(rows)
        return body(input_ids=ids, use_cache=False).last_hidden_state[real][at]

    def nll(self, rows: MicroBatch, measure: bool) -> tuple[torch.Tensor, Statistics | None]:
        """−log p of every target (N,), in nats."""
        if self.plain_head:
            head = inner(self.model).get_output_embeddings()
            return token_nll(self.hidden(rows, rows.predict, rows.read), head, rows.targets, measure)
        return token_nll(self._logits(rows), None, rows.targets, measure)

    def weighted_nll(self, rows: MicroBatch, measure: bool) -> tuple[torch.Tensor, Statistics | None]:
        """Σ weight · −log p over the targets."""
        if self.plain_head:
            head = inner(self.model).get_output_embeddings()
            return weighted_nll(self.hidden(rows, rows.predict, rows.read), head, rows.targets, rows.weights, measure)
        return weighted_nll(self._logits(rows), None, rows.targets, rows.weights, measure)

    def _logits(self, rows: MicroBatch) -> torch.Tensor:
        """The model's own logits (N, V), for heads that scale or cap them."""
        causal = inner(self.model)
        if self.packs:
            return causal(**packed(rows), logits_to_keep=rows.predict).logits[0]
        ids, real = unpacked(rows)
        return causal(input_ids=ids, use_cache=False).logits[real][rows.predict]


def packed(rows: MicroBatch) -> dict[str, Any]:
    """What a model with document attention is called with."""
    return {"input_ids": rows.ids, "position_ids": rows.positions, "use_cache": False, "layout": rows.layout}


def unpacked(rows: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The packed row as a right-padded rectangle: ids (B, L) and which are real (B, L), in the same order.

    No mask goes to the model: nothing causal sees what stands to its right, and a query whose whole window is
    masked would be NaN.
    """
    runs = rows.layout.runs
    assert not any(run.suffixes for run in runs), "a shared prefix needs document attention"
    pieces = rows.ids[0].split([run.prefix for run in runs for _ in range(run.count)])
    ids = nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
    lengths = torch.tensor([len(p) for p in pieces], device=ids.device)
    return ids, torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
