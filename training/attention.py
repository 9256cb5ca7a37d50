"""Attention inside documents that stand side by side in one row, with no mask and no padding.

Registered with transformers under the name `thresher`: a name its mask registry does not know, so models hand over no
mask, and the layout (`runs`, `bounds`) travels as keyword arguments through their forward. On CPU every run of equally
long documents is one scaled-dot-product call; on CUDA the whole row is one variable-length flash call.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

NAME = "thresher"
HALF = (torch.bfloat16, torch.float16)

Runs = tuple[tuple[int, int, int], ...]  # (start, documents, length of each), shortest first


def document_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    runs: Runs = (),
    bounds: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document. query (1, H, T, D), key and value (1, Hkv, T, D); returns (1, T, H, D).

    `bounds` int32 (documents + 1): where documents begin, and T. Needed on CUDA alone.
    """
    assert attention_mask is None and query.shape[0] == 1 and runs, "document attention takes one packed row"
    if torch.is_autocast_enabled(query.device.type):  # rotary embeddings leave queries and keys in fp32
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    if q.is_cuda and q.dtype in HALF and bounds is not None and dropout == 0:
        return _varlen(q, k, v, runs[-1][2], bounds, scaling)[None], None
    grouped = k.shape[1] != q.shape[1]
    out = []
    for start, n, length in runs:
        a, b, c = (x[start : start + n * length].unflatten(0, (n, length)).transpose(1, 2) for x in (q, k, v))
        o = F.scaled_dot_product_attention(
            a, b, c, is_causal=length > 1, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        )
        out.append(o.transpose(1, 2).flatten(0, 1))
    return torch.cat(out)[None], None


def _varlen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, longest: int, bounds: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """torch's own variable-length flash attention (CUDA, fp16 or bf16). q (T, H, D) → (T, H, D)."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0),
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
    if torch.allclose(alone, _hidden_packed(model), rtol=1e-3, atol=1e-3 * float(alone.abs().max())):
        return True
    model.set_attn_implementation("sdpa" if before == NAME else before)
    return False


TRIAL: Runs = ((0, 2, 3), (6, 1, 5))


def _trial_ids(model: Any) -> torch.Tensor:
    """Eleven different tokens: two documents of three, one of five."""
    vocabulary = model.config.get_text_config().vocab_size
    return (torch.arange(11, device=model.device) * 37 + 5)[None] % vocabulary


@torch.no_grad()
def _hidden_alone(model: Any) -> torch.Tensor:
    body = getattr(model, model.base_model_prefix)
    with _evaluating(model):
        pieces = _trial_ids(model).split([3, 3, 5], dim=1)
        return torch.cat([body(input_ids=p, use_cache=False).last_hidden_state[0] for p in pieces])


@torch.no_grad()
def _hidden_packed(model: Any) -> torch.Tensor:
    body = getattr(model, model.base_model_prefix)
    positions = torch.cat([torch.arange(n, device=model.device) for n in (3, 3, 5)])[None]
    bounds = torch.tensor([0, 3, 6, 11], device=model.device, dtype=torch.int32)
    with _evaluating(model):
        out = body(input_ids=_trial_ids(model), position_ids=positions, use_cache=False, runs=TRIAL, bounds=bounds)
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
        shape = {"runs": ((0, 1, 3),)} if model.config._attn_implementation == NAME else {}
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
