"""Repairs of preference pairs, each proven by an audit of what comes out.

    canonicalise   the same normalisation of both sides of every pair: whitespace at the ends, invisible characters
    balance        the fewest pairs dropped (greedily) until no listed feature pulls: |chosen − rejected| ≤ tolerance · pairs

Labels are never touched. A feature without counter-examples can only be balanced by dropping every pair that has it on
one side alone: where that costs most of the set, the set wants other answers, not fewer.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from scipy import sparse

from curation.audit import LEAST, Audit, audit
from curation.audit_features import incidence, texts
from curation.audit_findings import SEVERITIES, findings, signed_rows
from curation.audit_statistics import test
from curation.errors import InputError
from curation.stage import Outcome, drops

TOLERANCE = 0.01  # of |pull|
INVISIBLE = re.compile("[\u200b\u200c\u2060\ufeff\u00ad]")  # joiners stay: emoji and Indic scripts need them
SPACES = re.compile("[\u00a0\u2009\u202f]")
SIDES = ("chosen", "rejected")
MANIFEST = pa.schema(
    [("pair_id", pa.string()), ("action", pa.string()), ("before", pa.string()), ("after", pa.string())]
)
Method = Literal["balance", "canonicalise"]
Key = tuple[str, str]  # family and text of a feature


@dataclass(frozen=True)
class Repair:
    """What came out, and the proof. `pulls`: (before, after) of every feature that was to be mended."""

    outcome: Outcome
    manifest: pa.Table  # every row that was changed or dropped, with hashes of both sides before and after
    before: Audit
    after: Audit
    pulls: dict[Key, tuple[float, float]]

    @property
    def kept(self) -> float:
        return self.outcome.rows.num_rows / self.before.pairs


def canonical(text: str) -> str:
    """The text without what nobody sees: ends stripped, line ends and spaces made plain, invisible characters gone."""
    return SPACES.sub(" ", INVISIBLE.sub("", text)).replace("\r\n", "\n").replace("\r", "\n").strip()


def canonicalise(rows: pa.Table) -> Outcome:
    """Both sides of every pair made canonical; a pair whose sides become the same text leaves."""
    columns = {side: [_with_content(turns, canonical) for turns in rows[side].to_pylist()] for side in SIDES}
    same = [a[-1]["content"] == b[-1]["content"] for a, b in zip(*columns.values(), strict=True)]
    for side, values in columns.items():
        at = rows.column_names.index(side)
        rows = rows.set_column(at, rows.schema.field(side), pa.array(values, rows.schema.field(side).type))
    gone = [
        (i, "no_difference", "the sides differed in what nobody sees")
        for i, s in zip(_ids(rows), same, strict=True)
        if s
    ]
    return Outcome(rows.filter(pa.array([not s for s in same])), drops(gone))


def _with_content(turns: list[dict[str, str]], change: Callable[[str], str]) -> list[dict[str, str]]:
    return [*turns[:-1], {**turns[-1], "content": change(turns[-1]["content"])}]


def balance(rows: pa.Table, keys: Sequence[int], tolerance: float = TOLERANCE) -> Outcome:
    """Drop pairs until each of these features (hashes, `Incidence.keys`) pulls at most `tolerance`."""
    given = texts(rows)
    found = incidence(given, LEAST)
    signs = signed_rows(found, np.flatnonzero(np.isin(found.keys, np.array(keys, np.uint64))), given.pairs)
    keep = fewest_dropped(signs, tolerance)
    lost = {given.ids[i] for i in np.flatnonzero(~keep)}
    gone = [(i, "balanced", "dropped so that no listed feature pulls") for i in _ids(rows) if i in lost]
    return Outcome(rows.filter(pa.array([i not in lost for i in _ids(rows)])), drops(gone))


def fewest_dropped(signs: sparse.csr_matrix, tolerance: float) -> np.ndarray:
    """Which columns to keep, bool (N,), so that every row's |sum| is at most tolerance · columns kept.

    Greedy: the columns that take most away from the sums that are too large go first, a tenth of the excess at a time.
    """
    keep = np.ones(signs.shape[1], bool)
    turned = signs.T.tocsr()
    while True:
        sums = signs @ keep.astype(np.int64)
        excess = np.maximum(0, np.abs(sums) - tolerance * keep.sum())
        if not (excess > 0).any():
            return keep
        gain = (turned @ (np.sign(sums) * (excess > 0))) * keep
        order = np.argsort(-gain, kind="stable")
        best = order[: max(1, int(np.ceil(excess.max() / 10)))]
        keep[best[gain[best] == gain[order[0]]]] = False


def repair(
    rows: pa.Table, method: Method = "balance", wanted: set[Key] | None = None, tolerance: float = TOLERANCE
) -> Repair:
    """Mend findings of severity warn and above (of those, what is in `wanted`), and prove it. Raises InputError where
    nothing would be left."""
    before, keys = audit(rows), _keys(rows, wanted)
    outcome = canonicalise(rows) if method == "canonicalise" else balance(rows, list(keys.values()), tolerance)
    if outcome.rows.num_rows == 0:
        raise InputError(
            "repair", "no pair left", "counter-examples of the listed features",
            "one model wrote each side: sample both sides from the same model instead",
        )  # fmt: skip
    was, now = (_pulls(r, keys) for r in (rows, outcome.rows))
    return Repair(
        outcome, manifest(rows, outcome), before, audit(outcome.rows), {k: (was[k], now[k]) for k in sorted(keys)}
    )


def _keys(rows: pa.Table, wanted: set[Key] | None) -> dict[Key, int]:
    """The hash of every feature that is to be mended."""
    given = texts(rows)
    found = incidence(given, LEAST)
    listed, leaders = findings(found, test(found, given), given)
    return {
        (f.family, f.feature): int(found.keys[lead])
        for f, lead in zip(listed, leaders, strict=True)
        if SEVERITIES.index(f.severity) > 0 and (wanted is None or (f.family, f.feature) in wanted)
    }


def _pulls(rows: pa.Table, keys: dict[Key, int]) -> dict[Key, float]:
    """(chosen − rejected) / pairs of each feature, counted from the texts."""
    given = texts(rows)
    found = incidence(given, 1)
    net = np.bincount(found.features, found.signs, minlength=found.size)
    by_key = dict(zip(found.keys.tolist(), (net / given.pairs).tolist(), strict=True))
    return {name: by_key.get(key, 0.0) for name, key in keys.items()}


def manifest(before: pa.Table, outcome: Outcome) -> pa.Table:
    """One row per pair that was changed or dropped."""
    after = dict(zip(_ids(outcome.rows), _hashes(outcome.rows), strict=True))
    listed = [
        (i, "dropped" if i not in after else "changed", was, after.get(i))
        for i, was in zip(_ids(before), _hashes(before), strict=True)
        if after.get(i) != was
    ]
    return pa.table([pa.array([row[c] for row in listed], pa.string()) for c in range(4)], schema=MANIFEST)


def _ids(rows: pa.Table) -> list[str]:
    found: list[str] = rows["pair_id"].to_pylist()
    return found


def _hashes(rows: pa.Table) -> list[str]:
    """SHA-256 of both sides' last turns, 16 hex characters."""
    sides = zip(*(rows[s].to_pylist() for s in SIDES), strict=True)
    return [hashlib.sha256("\0".join(t[-1]["content"] for t in pair).encode()).hexdigest()[:16] for pair in sides]
