"""The audit as the benchmarks use it: all they know of its interface is in this file."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Found:
    """One finding."""

    feature: str
    family: str
    chosen: int
    rejected: int
    coverage: float
    purity: float
    severity: str
    members: tuple[str, ...]
    row_ids: tuple[str, ...]  # some of its rows


@dataclass(frozen=True)
class Report:
    verdict: str
    pairs: int
    limit: dict[str, float | None]  # purity: smallest coverage found with 90 % power
    bits: dict[str, float]  # of each rung of the probe
    findings: tuple[Found, ...]
    rows: dict[str, frozenset[str]]  # text of a finding: pair_id of every row flagged with it

    def rows_of(self, found: Found) -> tuple[set[int], int]:
        """(numbers of its rows as far as they can be told, how many it has). Findings of one text, a leading and a
        trailing newline, cannot be told apart among the flagged rows, and rows of an info finding are not flagged: then
        the rows listed with the finding stand for all."""
        if found.severity == "info" or sum(f.feature == found.feature for f in self.findings) > 1:
            return {int(i) for i in found.row_ids}, found.chosen + found.rejected
        flagged = self.rows.get(found.feature, frozenset())
        return {int(i) for i in flagged}, len(flagged)


def pairs_of(path: str) -> pa.Table:
    """Rows of schema.DPO."""
    from curation.pair_source import read_pairs

    return read_pairs(path).rows


def audited(rows: pa.Table) -> Report:
    """In this process."""
    from curation.audit import audit

    done = audit(rows)
    return _report(done.as_dict(), done.rows)


def audited_by_command(rows: pa.Table) -> Report:
    """As a user would: a file, the command, its files."""
    with tempfile.TemporaryDirectory() as folder:
        pairs, out = Path(folder) / "pairs.parquet", Path(folder) / "audit"
        pq.write_table(rows, pairs)
        words = ["-m", "pipelines.cli", "audit", str(pairs), "--out", str(out), "--fail-on", "never"]
        subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
        return _report(json.loads((out / "audit.json").read_text()), pq.read_table(out / "flagged.parquet"))


def _report(found: dict[str, Any], flagged: pa.Table) -> Report:
    rows: dict[str, set[str]] = {}
    for pair, named in zip(flagged["pair_id"].to_pylist(), flagged["findings"].to_pylist(), strict=True):
        for name in named:
            rows.setdefault(name, set()).add(pair)
    fields = Found.__dataclass_fields__
    findings = tuple(Found(**{k: f[k] for k in fields}) for f in found["findings"])
    bits = {name: float(rung["bits"]) for name, rung in found["probe"].items()}
    named_rows = {name: frozenset(ids) for name, ids in rows.items()}
    return Report(found["verdict"], found["pairs"], found["detection_limit"], bits, findings, named_rows)


def critical_p(limit: dict[str, float | None], pairs: int) -> float:
    """The p value below which a two-sided sign test of this audit counts, read back from the limit it states: what no
    one says outright can still be held against what is found."""
    stated = [(float(p), round(c * pairs)) for p, c in limit.items() if c is not None]
    if not stated:
        return 2 * 0.5**pairs
    purity, n = max(stated, key=lambda s: s[1])
    low, high = 1e-15, 0.5
    for _ in range(60):
        middle = (low * high) ** 0.5
        if smallest(purity, middle, pairs) > n:
            low = middle
        else:
            high = middle
    return high


def needed(n: int, critical: float) -> int:
    """How many of n must agree for p ≤ critical; more than n where none would do."""
    return int(stats.binom.isf(critical / 2, n, 0.5)) + 1 if n else 1


def smallest(purity: float, critical: float, pairs: int, power: float = 0.9) -> int:
    """The smallest number of one-sided pairs found with `power`; pairs + 1: none is."""
    low, high = 1, pairs + 1
    while low < high:
        n = (low + high) // 2
        if stats.binom.sf(needed(n, critical) - 1, n, purity) >= power:
            high = n
        else:
            low = n + 1
    return low
