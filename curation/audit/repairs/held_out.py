"""A repair on prompts that did not choose it: each half of the prompts mended by what the other half alone had listed."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from curation.audit.repairs.methods import Method
from curation.audit.repairs.pairs import Made, Pairs, pairs_of
from curation.audit.repairs.proof import Half, largest
from curation.audit.repairs.pulls import pulls_of
from curation.audit.repairs.targets import Target, targets_of
from curation.audit.whole import Audit, audit


def held_out(given: Pairs, after: Pairs, method: Method, only: Sequence[str], workers: int = 1) -> Iterator[Half]:
    """Two halves, or nothing where one is empty. A method that does not depend on what is listed is not applied again."""
    halves = [_half(given.rows, side) for side in range(2)]
    if min(h.num_rows for h in halves) == 0:
        return
    mine = [pairs_of(h)[0] for h in halves]
    audits = [audit(p.corpus, workers=workers) for p in mine]
    for side in range(2):
        listed = targets_of(audits[1 - side].findings, only, strict=False)
        made = method(mine[side], listed, workers) if method.by_targets else Made(_half(after.rows, side))
        listed = [t for t in listed if made.covers(t)]
        yield _measured(mine[side], audits[side], listed, made.rows, method.tolerance, workers)


def _measured(
    mine: Pairs, before: Audit, listed: Sequence[Target], made: pa.Table, tolerance: float, workers: int
) -> Half:
    """What `listed` pulls in a half and in what was made of it; where nothing was left, nothing is equivalent."""
    was, n = largest(pulls_of(mine, listed, workers)), mine.corpus.pairs
    if made.num_rows == 0:
        return Half(n, len(listed), 0, was, was, 0.0, _grave(before), 0)
    now, _ = pairs_of(made)
    pulls = pulls_of(now, listed, workers)
    there = set(now.ids)
    return Half(
        pairs=n, listed=len(listed), equivalent=sum(abs(p.value) <= tolerance + 1e-9 for p in pulls), largest_before=was,
        largest_after=largest(pulls), kept=float(np.mean([i in there for i in mine.ids])),
        above_info_before=_grave(before), above_info_after=_grave(audit(now.corpus, workers=workers)),
    )  # fmt: skip


def _half(rows: pa.Table, side: int) -> pa.Table:
    """Rows of the prompts whose hash is even (0) or odd (1)."""
    odd = [hashlib.sha256(p.encode()).digest()[0] & 1 for p in rows["prompt_id"].to_pylist()]
    return rows.filter(pa.array([o == side for o in odd], pa.bool_()))


def _grave(done: Audit) -> int:
    return sum(f.severity != "info" for f in done.findings)
