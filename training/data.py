"""From rows to micro-batches: which token is taught, how rows are packed, what each step sees.

    SFT rows ──encode──> Example(ids, taught) ──Batches(step)──> [MicroBatch, …]

The order is a pure function of (seed, step): there is no iterator to save, a resumed run computes the same batches.
A micro-batch is one flat row of documents sorted by length, so that documents of one length stand side by side and
attention takes them in one call without a copy (see attention.py).
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch

from curation.chat import control_ids, encode_turns_batch
from curation.errors import InputError
from curation.stage import Outcome, drops
from training.attention import Layout, layout_of, positions_of

ENCODE_AT_ONCE = 2048


@dataclass(frozen=True)
class Example:
    """One document. `taught[i]`: token i is a target. The first token never is."""

    row_id: str
    ids: np.ndarray  # int64 (L,)
    taught: np.ndarray  # bool (L,)
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def content(self) -> bytes:
        """What is trained on, as bytes for a hash."""
        return self.ids.tobytes() + self.taught.tobytes() + repr(self.weight).encode()


@dataclass(frozen=True)
class MicroBatch:
    """Documents side by side in one row of T tokens. Position `predict[n]` predicts `targets[n]`."""

    ids: torch.Tensor  # int64 (1, T)
    positions: torch.Tensor  # int64 (1, T), from 0 in each document
    predict: torch.Tensor  # int64 (N,)
    read: torch.Tensor  # int64 (R,): the same positions, each once
    targets: torch.Tensor  # int64 (N,)
    weights: torch.Tensor | None  # float32 (N,), None if all are 1
    layout: Layout
    supervised: float  # weight of the targets: the loss's normaliser

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]

    def to(self, device: torch.device) -> "MicroBatch":
        return to_device(self, device)


B = TypeVar("B")


def to_device(batch: B, device: torch.device) -> B:
    """A dataclass of tensors (and of such dataclasses) with all of them on `device`."""
    moved = {
        f.name: value.to(device)
        for f in dataclasses.fields(batch)  # type: ignore[arg-type]
        if hasattr(value := getattr(batch, f.name), "to")
    }
    return dataclasses.replace(batch, **moved)  # type: ignore[type-var]


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
            reason = refusal(tokenizer, np.asarray(tokens), taught, max_length)
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


def refusal(tokenizer: Any, ids: np.ndarray, taught: np.ndarray, max_length: int) -> tuple[str, str] | None:
    """Why a document cannot be trained on (reason, detail), or None."""
    if len(ids) > max_length:
        return "too_long", f"{len(ids)} tokens, limit {max_length}"
    if not taught.any():
        return "nothing_taught", "no assistant turn survives the chat template"
    # The end-of-turn token may be followed by what the template adds to it ("\n" in ChatML).
    control = control_ids(tokenizer)
    if not any(int(t) in control for t in ids[taught][-3:]):
        return "no_end_of_turn", "the template closes the assistant's turn with no special token"
    return None


class Row(Protocol):
    """What `Batches` must know of an example."""

    @property
    def tokens(self) -> int: ...

    def content(self) -> bytes: ...


@dataclass(frozen=True)
class Batches:
    """What each optimizer step sees: `batch_size` rows, as micro-batches of at most `micro_tokens` tokens.

    Called with (step, rank, world) it returns that rank's micro-batches. Rows of a step are dealt to ranks by
    length; a rank may get none. `pack` makes a micro-batch of some rows, given all rows of the step.
    """

    examples: Sequence[Any]  # of one kind of Row
    batch_size: int
    steps: int
    seed: int = 0
    shuffle: bool = True
    micro_tokens: int = 16384
    packing: bool = True  # False: one micro-batch per `micro_rows` rows, as an unpacked trainer would cut them
    micro_rows: int = 8
    pack: Callable[[Sequence[Any], Sequence[Any]], Any] = lambda rows, step_rows: pack(rows)

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> list[Any]:
        rows = self.rows(step)
        every = [self.examples[r] for r in rows]
        if not self.packing:
            cut = [rows[i : i + self.micro_rows] for i in range(0, len(rows), self.micro_rows)][rank::world]
        else:
            cut = self._bins(sorted(rows, key=lambda r: (-self.examples[r].tokens, r))[rank::world])
        return [self.pack([self.examples[r] for r in part], every) for part in cut]

    def rows(self, step: int) -> list[int]:
        """Row numbers of a step: consecutive pieces of one permutation per epoch."""
        n = len(self.examples)
        first = step * self.batch_size
        wanted = range(first, first + self.batch_size)
        orders = {epoch: self._order(epoch) for epoch in {i // n for i in wanted}}
        return [int(orders[i // n][i % n]) for i in wanted]

    def epoch(self, step: int) -> float:
        """Passes over the data after `step` steps."""
        return step * self.batch_size / len(self.examples)

    def _order(self, epoch: int) -> np.ndarray:
        n = len(self.examples)
        return np.random.default_rng([self.seed, epoch]).permutation(n) if self.shuffle else np.arange(n)

    def _bins(self, ordered: Sequence[int]) -> list[list[int]]:
        """First-fit decreasing into bins of `micro_tokens`; `ordered` is longest first."""
        bins: list[list[int]] = []
        room: list[int] = []
        for row in ordered:
            size = self.examples[row].tokens
            at = next((i for i, free in enumerate(room) if free >= size), None)
            if at is None:
                bins.append([])
                room.append(self.micro_tokens)
                at = len(bins) - 1
            bins[at].append(row)
            room[at] -= size
        return bins


def pack(examples: Sequence[Example]) -> MicroBatch:
    """Documents of any lengths as one micro-batch, sorted by length (stable): equal ones attend in one call."""
    docs = sorted(examples, key=lambda e: len(e.ids))
    shapes = [(len(e.ids), ()) for e in docs]
    ids = np.concatenate([e.ids for e in docs])
    predict = np.flatnonzero(np.concatenate([e.taught for e in docs])) - 1
    row_weights = np.array([e.weight for e in docs])
    weights = None
    supervised = float(len(predict))
    if (row_weights != 1).any():
        flat = np.repeat(row_weights, [e.tokens for e in docs])[predict + 1]
        weights, supervised = torch.from_numpy(flat.astype(np.float32)), float(flat.sum())
    return MicroBatch(
        ids=torch.from_numpy(ids)[None].long(),
        positions=torch.from_numpy(positions_of(shapes))[None],
        predict=torch.from_numpy(predict),
        read=torch.from_numpy(predict),
        targets=torch.from_numpy(ids[predict + 1]).long(),
        weights=weights,
        layout=layout_of(shapes),
        supervised=supervised,
    )


def data_sha(examples: Sequence[Row]) -> str:
    """Hash of what is trained on: every example's content, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(example.content())
    return digest.hexdigest()


def check_examples(examples: Sequence[Example], account: Outcome, where: str) -> None:
    """Raises InputError when no row is left to train on."""
    if not examples:
        raise InputError(where, f"no row to train on ({account.reasons()})", "at least one", "look at the reasons")
