"""From rows to micro-batches: which token is taught, how rows are packed, what each step sees.

    SFT rows ──encode──> Example(ids, taught) ──Batches(step)──> [MicroBatch, …]

The order is a pure function of (seed, step): there is no iterator to save, a resumed run computes the same batches.
A micro-batch is one flat row of documents sorted by length, so that documents of one length stand side by side and
attention takes them in one call without a copy (see attention.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from curation.chat import encode_turns_batch
from curation.errors import InputError
from curation.stage import Outcome, drops

ENCODE_AT_ONCE = 2048


@dataclass(frozen=True)
class Example:
    """One document. `taught[i]`: token i is a target. The first token never is."""

    row_id: str
    ids: np.ndarray  # int64 (L,)
    taught: np.ndarray  # bool (L,)
    weight: float = 1.0


@dataclass(frozen=True)
class MicroBatch:
    """Documents side by side in one row of T tokens.

    `runs` are (start, documents, length): `documents` of equal `length` from flat position `start` on.
    Position p predicts `targets`: `predict` holds the p's, `weights` their rows' weights or None if all are 1.
    """

    ids: torch.Tensor  # int64 (1, T)
    positions: torch.Tensor  # int64 (1, T), from 0 in each document
    predict: torch.Tensor  # int64 (N,)
    targets: torch.Tensor  # int64 (N,)
    weights: torch.Tensor | None  # float32 (N,)
    bounds: torch.Tensor  # int32 (D + 1,): where documents begin, and the end; what CUDA's attention takes
    runs: tuple[tuple[int, int, int], ...]
    supervised: float  # weight of the targets: the loss's normaliser

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]

    def to(self, device: torch.device) -> "MicroBatch":
        move = {
            n: getattr(self, n).to(device, non_blocking=True)
            for n in ("ids", "positions", "predict", "targets", "bounds")
        }
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return MicroBatch(**move, weights=weights, runs=self.runs, supervised=self.supervised)


def encode(tokenizer: Any, rows: pa.Table, max_length: int) -> tuple[list[Example], Outcome]:
    """Examples of SFT rows (`messages`, optional `tools`, `weight`, ids), and the account of the rows left out.

    A row is left out, with a reason, when it is longer than `max_length` (cutting it would teach to stop mid-way),
    when nothing in it is taught, or when its last taught token does not end the turn.
    """
    ids = _row_ids(rows)
    weights = rows["weight"].to_pylist() if "weight" in rows.column_names else [None] * rows.num_rows
    tools = rows["tools"].to_pylist() if "tools" in rows.column_names else [None] * rows.num_rows
    messages = rows["messages"].to_pylist()
    examples, gone = [], []
    for start in range(0, rows.num_rows, ENCODE_AT_ONCE):
        part = slice(start, start + ENCODE_AT_ONCE)
        encoded = encode_turns_batch(tokenizer, messages[part], tools[part])
        for row_id, weight, (tokens, mask) in zip(ids[part], weights[part], encoded, strict=True):
            taught = np.asarray(mask, dtype=bool)
            taught[:1] = False  # nothing predicts the first token
            reason = _refusal(tokenizer, np.asarray(tokens), taught, max_length)
            if reason:
                gone.append((row_id, *reason))
            else:
                examples.append(Example(row_id, np.asarray(tokens), taught, 1.0 if weight is None else float(weight)))
    return examples, Outcome(rows.slice(0, 0), drops(gone))


def _row_ids(rows: pa.Table) -> list[str]:
    for column in ("candidate_id", "prompt_id"):
        if column in rows.column_names and rows[column].null_count == 0:
            return rows[column].to_pylist()
    return [f"row {i}" for i in range(rows.num_rows)]


def _refusal(tokenizer: Any, ids: np.ndarray, taught: np.ndarray, max_length: int) -> tuple[str, str] | None:
    if len(ids) > max_length:
        return "too_long", f"{len(ids)} tokens, limit {max_length}"
    if not taught.any():
        return "nothing_taught", "no assistant turn survives the chat template"
    # The end-of-turn token may be followed by what the template adds to it ("\n" in ChatML).
    control = set(tokenizer.all_special_ids)
    if not any(int(t) in control for t in ids[taught][-3:]):
        return "no_end_of_turn", "the template closes the assistant's turn with no special token"
    return None


@dataclass(frozen=True)
class Batches:
    """What each optimizer step sees: `batch_size` rows, as micro-batches of at most `micro_tokens` tokens.

    Called with (step, rank, world) it returns that rank's micro-batches. Rows of a step are dealt to ranks by
    length; a rank may get none.
    """

    examples: Sequence[Example]
    batch_size: int
    steps: int
    seed: int = 0
    shuffle: bool = True
    micro_tokens: int = 16384
    packing: bool = True  # False: one micro-batch per `micro_rows` rows, as an unpacked trainer would cut them
    micro_rows: int = 8

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> list[MicroBatch]:
        rows = self.rows(step)
        if not self.packing:
            cut = [rows[i : i + self.micro_rows] for i in range(0, len(rows), self.micro_rows)]
            return [pack([self.examples[r] for r in part]) for part in cut[rank::world]]
        ordered = sorted(rows, key=lambda r: (-len(self.examples[r].ids), r))
        return [pack([self.examples[r] for r in part]) for part in self._bins(ordered[rank::world])]

    def rows(self, step: int) -> list[int]:
        """Row numbers of a step: consecutive pieces of one permutation per epoch."""
        n = len(self.examples)
        first = step * self.batch_size
        wanted = range(first, first + self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {i // n for i in wanted}}
        return [int(orders[i // n][i % n]) for i in wanted]

    def _order(self, epoch: int) -> np.ndarray:
        n = len(self.examples)
        return np.random.default_rng([self.seed, epoch]).permutation(n) if self.shuffle else np.arange(n)

    def _bins(self, ordered: Sequence[int]) -> list[list[int]]:
        """First-fit decreasing into bins of `micro_tokens`; `ordered` is longest first."""
        bins: list[list[int]] = []
        room: list[int] = []
        for row in ordered:
            size = len(self.examples[row].ids)
            at = next((i for i, free in enumerate(room) if free >= size), None)
            if at is None:
                bins.append([])
                room.append(self.micro_tokens)
                at = len(bins) - 1
            bins[at].append(row)
            room[at] -= size
        return bins


def pack(examples: Sequence[Example]) -> MicroBatch:
    """Documents of any lengths as one micro-batch, sorted by length (stable)."""
    docs = sorted(examples, key=lambda e: len(e.ids))
    lengths = np.array([len(e.ids) for e in docs])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ids = np.concatenate([e.ids for e in docs])
    taught = np.concatenate([e.taught for e in docs])
    predict = np.flatnonzero(taught) - 1
    row_weights = np.array([e.weight for e in docs])
    weights = None
    supervised = float(len(predict))
    if (row_weights != 1).any():
        flat = np.repeat(row_weights, lengths)[predict + 1]
        weights, supervised = torch.from_numpy(flat.astype(np.float32)), float(flat.sum())
    values, firsts, counts = np.unique(lengths, return_index=True, return_counts=True)
    runs = tuple((int(starts[f]), int(c), int(v)) for v, f, c in zip(values, firsts, counts, strict=True))
    return MicroBatch(
        ids=torch.from_numpy(ids)[None].long(),
        positions=torch.from_numpy(np.arange(len(ids)) - np.repeat(starts, lengths))[None],
        predict=torch.from_numpy(predict),
        targets=torch.from_numpy(ids[predict + 1]).long(),
        weights=weights,
        bounds=torch.from_numpy(np.append(starts, len(ids)).astype(np.int32)),
        runs=runs,
        supervised=supervised,
    )


def check_examples(examples: Sequence[Example], account: Outcome, where: str) -> None:
    """Raises InputError when no row is left to train on."""
    if not examples:
        raise InputError(where, f"no row to train on ({account.reasons()})", "at least one", "look at the reasons")
