"""Rows of schema.DPO and their corpus side by side, and what may be done to rows: text, weight, offset, new rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.audit.corpus import Corpus
from curation.audit.reading import corpus_of
from curation.audit.repairs.targets import Target
from curation.errors import InputError
from curation.pair_source import SIDES, imported_id
from curation.schema import DPO, REFERENCE, pair_id

Gone = tuple[str, str, str]  # row id, reason, detail


@dataclass(frozen=True)
class Pairs:
    """N rows, none of them twice. What is said of corpus pair i is said of row `corpus.rows[i]`."""

    rows: pa.Table
    corpus: Corpus

    @property
    def ids(self) -> list[str]:
        found: list[str] = self.rows["pair_id"].to_pylist()
        return found

    @property
    def weights(self) -> np.ndarray:
        """float64 (N,) in the corpus's order: of each pair in the loss."""
        return self.in_corpus(numbers(self.rows, "weight", 1.0))

    @property
    def offsets(self) -> np.ndarray:
        return self.in_corpus(numbers(self.rows, "offset", 0.0))

    def in_corpus(self, values: np.ndarray) -> np.ndarray:
        """Values of rows as values of corpus pairs."""
        found: np.ndarray = values[self.corpus.rows]
        return found

    def in_rows(self, values: np.ndarray) -> np.ndarray:
        """Values of corpus pairs as values of rows."""
        found = np.empty_like(values)
        found[self.corpus.rows] = values
        return found


@dataclass(frozen=True)
class Made:
    """What a method made: the rows that are left, those that left and why, and what it has to say."""

    rows: pa.Table
    gone: Sequence[Gone] = ()
    why: Mapping[str, str] = field(default_factory=dict)  # reasons of rows that were changed, by pair id
    notes: Mapping[str, Any] = field(default_factory=dict)  # figures for proof.json
    says: Sequence[str] = ()  # sentences for proof.md
    covered: frozenset[Target] | None = None  # features whose pull it answers for; None: all that were listed

    def covers(self, target: Target) -> bool:
        return self.covered is None or target in self.covered


def pairs_of(rows: pa.Table) -> tuple[Pairs, list[Gone]]:
    """Rows that an audit counts, and the ones it does not. Raises InputError without pairs or with an id twice."""
    corpus = corpus_of(rows)
    ids = rows["pair_id"].to_pylist()
    gone: list[Gone] = []
    if corpus.pairs < rows.num_rows:
        kept, twice = set(corpus.rows.tolist()), set(corpus.repeated.tolist())
        gone = [
            (name, "duplicate_pair" if i in twice else "no_pair", "") for i, name in enumerate(ids) if i not in kept
        ]
        rows = rows.take(pa.array(np.sort(corpus.rows)))
        corpus = corpus_of(rows)
        ids = rows["pair_id"].to_pylist()
    if None in ids or len(set(ids)) < len(ids):
        raise InputError("pairs", "rows with the same pair_id or none", "one id for every pair", "leave pair_id out")
    return Pairs(rows, corpus), gone


def texts_of(rows: pa.Table) -> tuple[list[str], list[str]]:
    """The chosen and the rejected answers."""
    chosen, rejected = ([turns[-1]["content"] for turns in rows[side].to_pylist()] for side in SIDES)
    return chosen, rejected


def with_texts(rows: pa.Table, texts: Mapping[int, tuple[str, str]]) -> pa.Table:
    """Rows with other answers in some of them. Reference log-probabilities of those are no longer known."""
    if not texts:
        return rows
    for at, side in enumerate(SIDES):
        turns = rows[side].to_pylist()
        for i, pair in texts.items():
            turns[i] = [*turns[i][:-1], {**turns[i][-1], "content": pair[at]}]
        rows = _with(rows, side, pa.array(turns, rows.schema.field(side).type))
    changed = np.zeros(rows.num_rows, bool)
    changed[list(texts)] = True
    for name, kind in REFERENCE:
        if name in rows.column_names:
            rows = _with(rows, name, pc.if_else(pa.array(changed), pa.scalar(None, kind), rows[name]))
    return rows


def with_numbers(rows: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    """Rows with another column of numbers."""
    column = pa.array(values, pa.float64())
    return _with(rows, name, column) if name in rows.column_names else rows.append_column(name, column)


def without(rows: pa.Table, gone: Sequence[Gone]) -> pa.Table:
    """Rows less those that left."""
    lost = {name for name, _, _ in gone}
    keep = [name not in lost for name in rows["pair_id"].to_pylist()]
    return rows.filter(pa.array(keep, pa.bool_())) if lost else rows


def numbers(rows: pa.Table, name: str, missing: float) -> np.ndarray:
    """A column of numbers, float64 (rows,)."""
    if name not in rows.column_names:
        return np.full(rows.num_rows, missing)
    found: np.ndarray = pc.fill_null(rows[name], missing).to_numpy().astype(np.float64)
    return found


def new_rows(made: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows to add, with what is not said of them null."""
    return pa.Table.from_pylist([{n: row.get(n) for n in schema.names} for row in made], schema=schema)


def derived(row: Mapping[str, Any], chosen: str, rejected: str, kind: str) -> dict[str, Any]:
    """A new pair of a row's prompt: nobody scored it, and no reference has seen it."""
    own = {n: row.get(n) for n in (*DPO.names,) if n in row}
    ids = [imported_id(row["prompt_id"], text) for text in (chosen, rejected)]
    return {
        **own, "chosen": [{"role": "assistant", "content": chosen}], "rejected": [{"role": "assistant", "content": rejected}],
        "chosen_score": float("nan"), "rejected_score": float("nan"), "margin": float("nan"), "kind": kind,
        "chosen_id": ids[0], "rejected_id": ids[1], "pair_id": pair_id(row["prompt_id"], *ids), "offset": None,
    }  # fmt: skip


def _with(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), column)
