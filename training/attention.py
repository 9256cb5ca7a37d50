"""Attention inside documents that stand side by side in one row, with no mask and no padding.

Registered with transformers under the name `thresher`: a name its mask registry does not know, so models hand over no
mask, and the layout (`runs`) travels as a keyword argument through their forward. On CPU every run of equally long
documents is one scaled-dot-product call; on CUDA the whole row is one variable-length flash call.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

NAME = "thresher"


def document_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    runs: tuple[tuple[int, int, int], ...] = (),
    bounds: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document. query (1, H, T, D), key and value (1, Hkv, T, D); returns (1, T, H, D)."""
    assert attention_mask is None and query.shape[0] == 1 and runs, "document attention takes one packed row"
    if torch.is_autocast_enabled(query.device.type):  # rotary embeddings leave queries and keys in fp32
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and bounds is not None and dropout == 0:
        return _varlen(q, k, v, bounds, runs[-1][2], scaling)[None], None
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
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: torch.Tensor, longest: int, scaling: float | None
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

    Wrong are layers that look at a window or carry a state along the row: sliding-window and linear attention.
    """
    from transformers import AttentionInterface

    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or not model._supports_sdpa:
        return False
    AttentionInterface.register(NAME, document_attention)
    model.set_attn_implementation(NAME)
    return True
