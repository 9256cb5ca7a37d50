"""In-process sampling: every prompt computed once for its K samples, log-probabilities kept.

A batch of prompts is left-padded and run once; its keys and values are repeated per sample into one preallocated
store; each further step computes one token per row still running. The attention function below keeps that store
itself, so any transformers model that takes its attention from the registry can be sampled.

A sample's randomness is a hash of (its seed, step), drawn through the inverse of the cumulative distribution: which
rows share its batch does not matter.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from curation.engine import Sampling

NAME = "thresher_sampler"
SHRINK = 0.6  # drop finished rows from the store when fewer than this share still run


class Drawn(NamedTuple):
    """One sample: its tokens (the end token included), their log-probabilities (nats), and whether it ended itself."""

    tokens: list[int]
    logprobs: list[float]
    stopped: bool


class Store:
    """Keys and values of all rows of a batch, per layer: (rows, heads, positions, head size)."""

    def __init__(self, repeats: int, width: int, extra: int) -> None:
        self.repeats, self.width, self.capacity = repeats, width, width + extra
        self.used = 0
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.mask: torch.Tensor | None = None  # prefill: (rows, 1, width, width); decode: (rows, 1, 1, capacity)

    def fill(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Take the prompts' keys and values, once per sample."""
        rows, heads, _, size = key.shape
        made = []
        for part in (key, value):
            room = part.new_empty(rows, self.repeats, heads, self.capacity, size)
            room[..., : self.width, :] = part[:, None]
            made.append(room.flatten(0, 1))
        self.layers[layer] = (made[0], made[1])

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add one position; all keys and values so far."""
        keys, values = self.layers[layer]
        keys[:, :, self.used : self.used + 1] = key
        values[:, :, self.used : self.used + 1] = value
        return keys[:, :, : self.used + 1], values[:, :, : self.used + 1]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.layers = {i: (k[rows], v[rows]) for i, (k, v) in self.layers.items()}
        assert self.mask is not None
        self.mask = self.mask[rows]


def sampler_attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    scaling: float | None = None, store: Store | None = None, **_: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention over the store. query (R, H, q, D): the whole prompts when the store is empty, else one token."""
    assert store is not None and attention_mask is None and store.mask is not None
    layer: int = module.layer_idx  # type: ignore[assignment]
    if store.used == 0:
        store.fill(layer, key, value)
        mask = store.mask
    else:
        key, value = store.append(layer, key, value)
        mask = store.mask[..., : store.used + 1]
    grouped = key.shape[1] != query.shape[1]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2), None


@torch.inference_mode()
def draw(
    model: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling,
    end_ids: Collection[int], stop: Any = None,
) -> list[list[Drawn]]:  # fmt: skip
    """Samples of every prompt, one per seed of it (the same number for all). `stop(tokens)`: ends a row by its text.

    `model` is a causal transformers model switched to this file's attention.
    """
    device, count = model.device, len(seeds[0])
    width = max(map(len, prompts))
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
    for i, prompt in enumerate(prompts):
        ids[i, width - len(prompt) :] = torch.tensor(prompt, device=device)
    at = torch.arange(width, device=device)
    real = at[None] >= (width - lengths)[:, None]
    store = Store(count, width, sampling.max_tokens)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    # A padded query sees itself alone: a row of nothing would be NaN.
    store.mask = (real[:, None, None] & causal) | torch.eye(width, dtype=torch.bool, device=device)
    positions = (at[None] - (width - lengths)[:, None]).clamp(min=0)
    logits = _forward(model, ids, positions, store).repeat_interleave(count, 0)
    keys = torch.cat([real, real.new_ones(len(prompts), sampling.max_tokens)], 1)[:, None, None]
    store.mask, store.used = keys.repeat_interleave(count, 0), width
    rows = Rows([s for group in seeds for s in group], sampling, end_ids, stop)
    position = lengths.repeat_interleave(count)
    for step in range(sampling.max_tokens):
        tokens = rows.take(logits, step)
        alive = rows.alive()
        if not len(alive) or step + 1 == sampling.max_tokens:
            break
        if len(alive) < SHRINK * len(rows.running):
            chosen = torch.from_numpy(alive).to(device)
            store.keep(chosen)
            rows.keep(alive)
            position, tokens = position[chosen], tokens[chosen]
        logits = _forward(model, tokens[:, None], position[:, None], store)
        store.used += 1
        position = position + 1
    drawn = rows.drawn()
    return [drawn[i * count : (i + 1) * count] for i in range(len(prompts))]


def _forward(model: Any, ids: torch.Tensor, positions: torch.Tensor, store: Store) -> torch.Tensor:
    """Logits (rows, vocabulary) at the last position, fp32."""
    body = getattr(model, model.base_model_prefix)
    hidden = body(input_ids=ids, position_ids=positions, use_cache=False, store=store).last_hidden_state[:, -1]
    return model.get_output_embeddings()(hidden).float()


class Rows:
    """The samples of a batch as they grow."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling, end_ids: Collection[int], stop: Any) -> None:
        self.seeds = np.asarray(seeds, dtype=np.uint64)
        self.sampling, self.stop = sampling, stop
        self.end_ids = np.asarray(sorted(end_ids), dtype=np.int64)
        self.running = np.arange(len(seeds))  # row in the store → sample
        self.steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # samples, tokens, log-probabilities
        self.ended = np.zeros(len(seeds), dtype=bool)

    def take(self, logits: torch.Tensor, step: int) -> torch.Tensor:
        """Choose a token for every row of the store; rows that ended before choose too, and it is not recorded."""
        uniform = uniforms(self.seeds[self.running], step)
        tokens, logprobs = choose(logits, self.sampling, torch.from_numpy(uniform).to(logits.device))
        chosen, values = tokens.cpu().numpy(), logprobs.cpu().numpy()
        open_rows = ~self.ended[self.running]
        self.steps.append((self.running[open_rows], chosen[open_rows], values[open_rows]))
        ends = np.isin(chosen, self.end_ids)
        if self.stop is not None:
            for row in np.flatnonzero(open_rows & ~ends):
                ends[row] = self.stop(self._tokens(self.running[row]))
        self.ended[self.running[open_rows & ends]] = True
        return tokens

    def alive(self) -> np.ndarray:
        """Rows of the store whose sample still runs."""
        return np.flatnonzero(~self.ended[self.running])

    def keep(self, rows: np.ndarray) -> None:
        self.running = self.running[rows]

    def _tokens(self, sample: int) -> list[int]:
        return [int(t[i]) for s, t, _ in self.steps for i in np.flatnonzero(s == sample)]

    def drawn(self) -> list[Drawn]:
        tokens: list[list[int]] = [[] for _ in self.seeds]
        logprobs: list[list[float]] = [[] for _ in self.seeds]
        for samples, chosen, values in self.steps:
            for s, t, v in zip(samples.tolist(), chosen.tolist(), values.tolist(), strict=True):
                tokens[s].append(t)
                logprobs[s].append(v)
        return [Drawn(t, p, bool(e)) for t, p, e in zip(tokens, logprobs, self.ended, strict=True)]


def choose(logits: torch.Tensor, sampling: Sampling, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A token per row and its log-probability under the distribution it was drawn from. logits (R, V) fp32.

    Temperature 0 takes the top token, with its log-probability at temperature 1.
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        picked = logits.gather(-1, tokens[:, None]).squeeze(-1)
        return tokens, picked - logits.logsumexp(-1)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    probabilities = filtered(logits, sampling.top_k, sampling.top_p).softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    target = uniform[:, None].double() * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return tokens, probabilities.gather(-1, tokens[:, None]).squeeze(-1).log()


def filtered(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Logits with all but the top k, and all outside the nucleus p (Holtzman et al. 2020), at −inf."""
    if top_k > 0:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, float("-inf"))
    return logits


def uniforms(seeds: np.ndarray, step: int) -> np.ndarray:
    """One number in [0, 1) per seed at this step: splitmix64 (Steele et al. 2014) of seed and step. float64 (R,)"""
    with np.errstate(over="ignore"):
        z = seeds * np.uint64(0x9E3779B97F4A7C15) + np.uint64(step + 1) * np.uint64(0xD1B54A32D192ED03)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
