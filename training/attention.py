"""Attention inside documents that stand side by side in one row, with no mask and no padding.

A document is a prefix, alone (SFT) or with suffixes that each see the prefix and themselves but not one another: one
prompt with a chosen and a rejected answer, or with K samples. The prompt is computed once for all of them.

Registered with transformers under the name `thresher`: a name its mask registry does not know, so models hand over no
mask, and the layout travels as a keyword argument through their forward. On CPU every run of equally shaped documents
is a few scaled-dot-product calls; on CUDA the whole row is one variable-length flash call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

NAME = "thresher"
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Run:
    """`count` documents of one shape from flat position `start` on: `prefix` tokens, then suffixes of these lengths."""

    start: int
    count: int
    prefix: int
    suffixes: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of one document."""
        return self.prefix + sum(self.suffixes)


@dataclass(frozen=True)
class Layout:
    """How a row of T tokens is made of documents. A sequence is a prefix or a suffix: what attends as one.

    The tensors are what CUDA's call takes: where the queries of every sequence begin (and T), the same for its keys,
    and which keys those are (None without suffixes: the queries' own). A suffix's keys are the prefix's and its own.
    """

    runs: tuple[Run, ...]
    queries: torch.Tensor  # int32 (S + 1,)
    keys: torch.Tensor  # int32 (S + 1,)
    gather: torch.Tensor | None  # int64 (keys[-1],)
    longest: tuple[int, int]  # tokens of the longest query and of the longest key sequence

    def to(self, device: torch.device) -> "Layout":
        gather = None if self.gather is None else self.gather.to(device)
        return Layout(self.runs, self.queries.to(device), self.keys.to(device), gather, self.longest)


def layout_of(shapes: Sequence[tuple[int, tuple[int, ...]]]) -> Layout:
    """The layout of documents of these (prefix, suffixes) side by side, equal neighbours in one run."""
    runs: list[Run] = []
    queries, keys, gather = [0], [0], []
    at, shared = 0, any(suffixes for _, suffixes in shapes)
    for prefix, suffixes in shapes:
        last = runs[-1] if runs else None
        if last and (last.prefix, last.suffixes) == (prefix, suffixes):
            runs[-1] = Run(last.start, last.count + 1, prefix, suffixes)
        else:
            runs.append(Run(at, 1, prefix, suffixes))
        begin = at
        for before, own in ((0, prefix), *((prefix, n) for n in suffixes)):
            queries.append(at + own)
            keys.append(keys[-1] + before + own)
            if shared:
                gather += [np.arange(begin, begin + before), np.arange(at, at + own)]
            at += own
    return Layout(
        tuple(runs), torch.tensor(queries, dtype=torch.int32), torch.tensor(keys, dtype=torch.int32),
        torch.from_numpy(np.concatenate(gather)) if shared else None,
        (int(np.diff(queries).max()), int(np.diff(keys).max())),
    )  # fmt: skip


def positions_of(shapes: Sequence[tuple[int, tuple[int, ...]]]) -> np.ndarray:
    """int64 (T,): each token's place in its document; every suffix goes on from the prefix."""
    parts = [p for prefix, suffixes in shapes for p in (np.arange(prefix), *(prefix + np.arange(n) for n in suffixes))]
    return np.concatenate(parts)


def document_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document. query (1, H, T, D), key and value (1, Hkv, T, D); returns (1, T, H, D)."""
    assert attention_mask is None and query.shape[0] == 1 and layout, "document attention takes one packed row"
    if torch.is_autocast_enabled(query.device.type):  # rotary embeddings leave queries and keys in fp32
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    if q.is_cuda and q.dtype in HALF and dropout == 0:
        return _varlen(q, k, v, layout, scaling)[None], None
    settings = {"scale": scaling, "dropout_p": dropout, "enable_gqa": k.shape[1] != q.shape[1]}
    sizes = [run.count * run.length for run in layout.runs]
    parts = zip(q.split(sizes), k.split(sizes), v.split(sizes), layout.runs, strict=True)
    return torch.cat([_run_attention(*part, settings) for part in parts])[None], None


def _run_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, run: Run, settings: dict[str, Any]
) -> torch.Tensor:
    """One run's rows of the output (count · length, H, D)."""
    pieces = [run.prefix, *run.suffixes]
    # Split, not sliced: the gradient of a split is one concatenation, that of a slice a buffer of zeros for each.
    (q, *qs), (k, *ks), (v, *vs) = (
        x.unflatten(0, (run.count, run.length)).transpose(1, 2).split(pieces, dim=2) for x in (q, k, v)
    )  # (n, H, piece, D)
    out = [F.scaled_dot_product_attention(q, k, v, is_causal=run.prefix > 1, **settings)]
    for own, key, value in zip(qs, ks, vs, strict=True):
        keys, values = torch.cat([k, key], dim=2), torch.cat([v, value], dim=2)
        sees = torch.ones(own.shape[2], keys.shape[2], dtype=torch.bool, device=q.device).tril(run.prefix)
        out.append(F.scaled_dot_product_attention(own, keys, values, attn_mask=sees, **settings))
    return torch.cat(out, dim=2).transpose(1, 2).flatten(0, 1)


def _varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, scaling: float | None) -> torch.Tensor:
    """torch's own variable-length flash attention (CUDA, fp16 or bf16). q (T, H, D) → (T, H, D).

    Its causal window is aligned to the end of the keys: exactly what a suffix behind its prefix needs.
    """
    from torch.nn.attention.varlen import varlen_attn

    if layout.gather is not None:
        k, v = k.index_select(0, layout.gather), v.index_select(0, layout.gather)
    out = varlen_attn(
        q, k, v, layout.queries, layout.keys, *layout.longest, scale=scaling, window_size=(-1, 0),
        enable_gqa=k.shape[1] != q.shape[1],
    )  # fmt: skip
    assert isinstance(out, torch.Tensor)
    return out


def use_document_attention(model: Any) -> bool:
    """Switch a transformers model to document attention; False (and nothing changed) where it would be wrong.

    Wrong are layers that look through a window (the config says so) and anything else that lets documents feel each
    other or their place in the row: recurrent state, position biases. That is not read from names but tried: a few
    documents must come out side by side as they do alone.
    """
    from transformers import AttentionInterface

    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = kinds != {"full_attention"} or getattr(config, "sliding_window", None) is not None
    if windowed or not model._supports_sdpa:
        return False
    AttentionInterface.register(NAME, document_attention)
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    alone = _hidden_alone(model)
    model.set_attn_implementation(NAME)
    if torch.allclose(alone, hidden_packed(model), rtol=1e-3, atol=1e-3 * float(alone.abs().max())):
        return True
    model.set_attn_implementation("sdpa" if before == NAME else before)
    return False


TRIAL = ((3, ()), (3, ()), (2, (3, 1)))  # two documents of three, one of two with suffixes of three and one


def _trial_ids(model: Any) -> torch.Tensor:
    """Twelve different tokens."""
    vocabulary = model.config.get_text_config().vocab_size
    return (torch.arange(12, device=model.device) * 37 + 5)[None] % vocabulary


@torch.no_grad()
def _hidden_alone(model: Any) -> torch.Tensor:
    """Every document by itself, a prefix once with each suffix."""
    body = getattr(model, model.base_model_prefix)
    ids = _trial_ids(model)
    with _evaluating(model):
        first, second, prefix, long, short = ids.split([3, 3, 2, 3, 1], dim=1)
        inputs = (first, second, torch.cat([prefix, long], 1), torch.cat([prefix, short], 1))
        hidden = [body(input_ids=p, use_cache=False).last_hidden_state[0] for p in inputs]
        return torch.cat([*hidden[:3], hidden[3][2:]])


@torch.no_grad()
def hidden_packed(model: Any, **more: Any) -> torch.Tensor:
    """The same documents side by side (12, H); `more` goes to the model."""
    body = getattr(model, model.base_model_prefix)
    positions = torch.from_numpy(positions_of(TRIAL)).to(model.device)[None]
    layout = layout_of(TRIAL).to(model.device)
    with _evaluating(model):
        out = body(input_ids=_trial_ids(model), position_ids=positions, use_cache=False, layout=layout, **more)
        return out.last_hidden_state[0]


@torch.no_grad()
def head_is_all(model: Any) -> bool:
    """Whether logits are the output layer on the hidden states and nothing more: no scale, no soft cap.

    Tried on a few tokens; but a cap hardly shows on small logits, so there the config is asked.
    """
    if getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None:
        return False
    with _evaluating(model):
        ids = _trial_ids(model)[:, :3]
        shape = {"layout": layout_of([(3, ())]).to(model.device)} if model.config._attn_implementation == NAME else {}
        hidden = getattr(model, model.base_model_prefix)(input_ids=ids, use_cache=False, **shape).last_hidden_state
        theirs = model(input_ids=ids, use_cache=False, **shape).logits
        return torch.allclose(model.get_output_embeddings()(hidden), theirs, rtol=1e-3, atol=1e-4)


class _evaluating:
    """Within it the model is in evaluation mode: no dropout."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)
