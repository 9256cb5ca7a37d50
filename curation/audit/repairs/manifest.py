"""The manifest: a row for every pair that was changed, dropped, added, weighted anew or given an offset."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation.audit.repairs.pairs import Gone, numbers, texts_of

HASHES = ("chosen_before", "chosen_after", "rejected_before", "rejected_after")
NUMBERS = ("weight_before", "weight_after", "offset_before", "offset_after")
MANIFEST = pa.schema(
    [
        ("pair_id", pa.string()),
        ("action", pa.string()),  # changed, dropped, added, weighted, offset
        ("reason", pa.string()),
        *((name, pa.string()) for name in HASHES),  # SHA-256 of the side's text; null where the row is not there
        *((name, pa.float64()) for name in NUMBERS),
    ]
)
State = tuple[str, str, float, float]  # hashes of both sides, weight, offset


def manifest(before: pa.Table, after: pa.Table, gone: Sequence[Gone], why: Mapping[str, str], added: str) -> pa.Table:
    """`gone` and `why` say the reasons of rows that left or changed, `added` that of new ones."""
    was, now = _states(before), _states(after)
    kept = dict(zip(after["pair_id"].to_pylist(), now, strict=True))
    left: dict[str, list[str]] = {}
    for name, reason, detail in gone:
        left.setdefault(name, []).append(f"{reason}: {detail}" if detail else reason)
    listed, seen = list[dict[str, Any]](), set[str]()
    for name, old in zip(before["pair_id"].to_pylist(), was, strict=True):
        new = kept.get(name) if name not in seen else None
        seen.add(name)
        if new is None:
            listed.append(_row(name, "dropped", left[name].pop(0), old, None))
        elif new != old:
            action = "changed" if new[:2] != old[:2] else "weighted" if new[2] != old[2] else "offset"
            listed.append(_row(name, action, why.get(name, ""), old, new))
    listed += [_row(name, "added", added, None, new) for name, new in kept.items() if name not in seen]
    return pa.Table.from_pylist(listed, schema=MANIFEST)


def _row(name: str, action: str, reason: str, old: State | None, new: State | None) -> dict[str, Any]:
    found: dict[str, Any] = {"pair_id": name, "action": action, "reason": reason}
    for i, what in enumerate(("chosen", "rejected", "weight", "offset")):
        for when, state in (("before", old), ("after", new)):
            found[f"{what}_{when}"] = None if state is None else state[i]
    return found


def _states(rows: pa.Table) -> list[State]:
    hashes = ([hashlib.sha256(t.encode()).hexdigest() for t in side] for side in texts_of(rows))
    weights, offsets = numbers(rows, "weight", 1.0).tolist(), numbers(rows, "offset", 0.0).tolist()
    return list(zip(*hashes, weights, offsets, strict=True))
