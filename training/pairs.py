"""From preference rows to micro-batches in which a prompt is computed once for both of its answers.

    dpo rows ──encode_pairs──> PairExample(chosen, rejected, shared) ──pack_pairs──> PairBatch

Whatever both sides begin with is shared, the prompt and a common opening of the answers: [shared | rest of chosen |
rest of rejected]. It is exact, since causal attention lets a token see only what stands before it (Wang & Hegde 2024,
arXiv 2410.20305).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from curation.chat import common_prefix, encode_completions
from curation.errors import InputError
from curation.stage import Outcome, drops
from training.attention import layout_of, positions_of
from training.data import ENCODE_AT_ONCE, Example, MicroBatch, refusal, to_device


@dataclass(frozen=True)
class PairExample:
    """One pair. Its first `shared` tokens, the same on both sides, are computed once; each side has one more at least."""

    pair_id: str
    chosen: Example
    rejected: Example
    shared: int
    weight: float = 1.0
    offset: float = 0.0  # how much more than 0 the reward margin is asked to be
    margin: float = 0.0  # difference of the scores
    reference: tuple[float, float] | None = None  # log-probabilities of chosen and rejected, nats

    @property
    def tokens(self) -> int:
        """Tokens to compute with sharing."""
        return self.chosen.tokens + self.rejected.tokens - self.shared

    def content(self) -> bytes:
        return self.chosen.content() + self.rejected.content() + repr((self.weight, self.offset, self.margin)).encode()


@dataclass(frozen=True)
class PairBatch:
    """B pairs. Sequence 2i is the chosen side of pair i, 2i + 1 the rejected one."""

    rows: MicroBatch
    owner: torch.Tensor  # int64 (N,): the sequence each of the row's targets belongs to
    lengths: torch.Tensor  # float32 (2B,): completion tokens
    last: torch.Tensor  # int64 (2B,): flat position of each sequence's last token
    weights: torch.Tensor  # float32 (B,)
    offsets: torch.Tensor  # float32 (B,)
    margins: torch.Tensor  # float32 (B,)
    reference: torch.Tensor  # float64 (2B,), nats; NaN where not known
    supervised: float  # Σ weights: the loss's normaliser
    step_pairs_per_token: float = field(default=0.0)  # Σ weights / chosen completion tokens, over the whole step

    @property
    def tokens(self) -> int:
        return self.rows.tokens

    def to(self, device: torch.device) -> "PairBatch":
        return to_device(self, device)


def encode_pairs(tokenizer: Any, rows: pa.Table, max_length: int) -> tuple[list[PairExample], Outcome]:
    """Examples of preference rows (schema.DPO), and the account of the rows left out.

    A pair is left out, with a reason, when a side is longer than `max_length` (cutting would teach to stop mid-way),
    when a side has no tokens to teach or does not end its turn, and when both sides come out the same.
    """
    names = rows.column_names
    columns = {n: rows[n].to_pylist() if n in names else [None] * rows.num_rows for n in OPTIONAL}
    ids, prompts = columns["pair_id"], rows["prompt"].to_pylist()
    sides = {side: rows[side].to_pylist() for side in ("chosen", "rejected")}
    examples, gone = [], []
    for start in range(0, rows.num_rows, ENCODE_AT_ONCE):
        part = slice(start, start + ENCODE_AT_ONCE)
        made = [encode_completions(tokenizer, prompts[part], sides[s][part], columns["tools"][part]) for s in sides]
        for i, pair in enumerate(zip(*made, strict=True), start):
            row_id = ids[i] or f"row {i}"
            chosen, rejected = (_side(row_id, *side) for side in pair)
            reason = _refusal(tokenizer, chosen, rejected, max_length)
            if reason:
                gone.append((row_id, *reason))
                continue
            weight, offset, margin = (columns[n][i] for n in ("weight", "offset", "margin"))
            examples.append(
                PairExample(
                    row_id, chosen, rejected, _shared(chosen, rejected), 1.0 if weight is None else float(weight),
                    float(offset or 0.0), 0.0 if margin is None or margin != margin else float(margin),
                )
            )  # fmt: skip
    return examples, Outcome(rows.slice(0, 0), drops(gone))


OPTIONAL = ("pair_id", "tools", "weight", "offset", "margin")


def _side(row_id: str, ids: Sequence[int], start: int) -> Example:
    taught = np.arange(len(ids)) >= max(start, 1)
    return Example(row_id, np.asarray(ids, dtype=np.int64), taught)


def _refusal(tokenizer: Any, chosen: Example, rejected: Example, max_length: int) -> tuple[str, str] | None:
    if np.array_equal(chosen.ids, rejected.ids):
        return "no_difference", "both sides are the same tokens"
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        reason = refusal(tokenizer, side.ids, side.taught, max_length)
        if reason:
            return reason[0], f"{name}: {reason[1]}"
    return None


def _shared(chosen: Example, rejected: Example) -> int:
    """Tokens both sides begin with; one at least is left for each side, since a sequence ends in a place of its own."""
    return min(common_prefix(chosen.ids.tolist(), rejected.ids.tolist()), chosen.tokens - 1, rejected.tokens - 1)


def pack_pairs(pairs: Sequence[PairExample], step_pairs: Sequence[PairExample]) -> PairBatch:
    """One micro-batch of some of a step's pairs. Where nothing is shared, both sides are documents of their own."""
    shapes: list[tuple[int, tuple[int, ...]]] = []
    ids, predict, targets, owner, last = [], [], [], [], []
    at = 0
    for i, pair in enumerate(pairs):
        shared = pair.shared
        sides = (pair.chosen, pair.rejected)
        rest = [side.tokens - shared for side in sides]
        shapes += [(shared, tuple(rest))] if shared else [(n, ()) for n in rest]
        ids += [pair.chosen.ids[:shared], *(side.ids[shared:] for side in sides)]
        begin = at + shared
        for j, side in enumerate(sides):
            tokens = np.flatnonzero(side.taught)
            before = tokens - 1
            predict.append(np.where(before < shared, at + before, begin + before - shared))
            targets.append(side.ids[tokens])
            owner.append(np.full(len(tokens), 2 * i + j))
            begin += rest[j]
            last.append(begin - 1)
        at = begin
    flat_ids, flat_predict, flat_targets = np.concatenate(ids), np.concatenate(predict), np.concatenate(targets)
    weights = np.array([p.weight for p in pairs], dtype=np.float32)
    unknown = (float("nan"), float("nan"))
    chosen_tokens = sum(int(p.chosen.taught.sum()) for p in step_pairs)
    rows = MicroBatch(
        ids=torch.from_numpy(flat_ids)[None], positions=torch.from_numpy(positions_of(shapes))[None],
        predict=torch.from_numpy(flat_predict), read=torch.from_numpy(np.unique(flat_predict)),
        targets=torch.from_numpy(flat_targets), weights=None,
        layout=layout_of(shapes), supervised=float(len(flat_targets)),
    )  # fmt: skip
    return PairBatch(
        rows=rows, owner=torch.from_numpy(np.concatenate(owner)),
        lengths=torch.tensor([float(s.taught.sum()) for p in pairs for s in (p.chosen, p.rejected)]),
        last=torch.tensor(last), weights=torch.from_numpy(weights),
        offsets=torch.tensor([p.offset for p in pairs]), margins=torch.tensor([p.margin for p in pairs]),
        reference=torch.tensor([v for p in pairs for v in (p.reference or unknown)], dtype=torch.float64),
        supervised=float(weights.sum()),
        step_pairs_per_token=sum(p.weight for p in step_pairs) / max(1, chosen_tokens),
    )  # fmt: skip


def unshared(pairs: Sequence[PairExample]) -> list[PairExample]:
    """The same pairs, to be computed side by side."""
    return [dataclasses.replace(p, shared=0) for p in pairs]


def check_sharing(share: bool, packs: bool) -> None:
    """Raises InputError where sharing prefixes was asked for and the model's attention cannot."""
    if share and not packs:
        raise InputError(
            "share_prefix", "a model whose attention cannot share a prefix (windows, recurrent state)",
            "full causal attention", "add --no-share-prefix",
        )  # fmt: skip
