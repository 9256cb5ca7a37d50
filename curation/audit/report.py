"""An audit as files: audit.html, audit.json, audit.md, flagged.parquet; and what the terminal says."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.audit.baseline import Comparison
from curation.audit.corpus import Corpus
from curation.audit.findings import Finding
from curation.audit.listing import SHOWN
from curation.audit.page import page
from curation.audit.sentences import (
    HEADLINES,
    compared,
    learned,
    limits,
    meaning,
    missed,
    of_rung,
    size,
    taught,
)
from curation.audit.visible import cell, plain, quoted, visible
from curation.audit.whole import Audit
from curation.errors import one_line

__all__ = ["markdown", "summary", "visible", "write"]

PLAIN_ID = re.compile(r"[0-9a-f-]{1,64}|sha256:[0-9a-f]+")  # hashes, UUIDs, numbers: no text of a row
MOST = 20  # reasons and changes in Markdown


def write(
    done: Audit, corpus: Corpus, out: Path, redact: bool = False, baseline: Comparison | None = None
) -> list[Path]:  # fmt: skip
    """audit.html, audit.json, audit.md and flagged.parquet in `out`. With `redact` no text of the rows is in any of them
    but the findings, and ids that could hold text are hashes."""
    done = redacted(done) if redact else done
    out.mkdir(parents=True, exist_ok=True)
    made = json.dumps(done.as_dict(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    (out / "audit.json").write_text(made, encoding="utf-8")
    (out / "audit.md").write_text(markdown(done, baseline), encoding="utf-8")
    (out / "audit.html").write_text(page(done, corpus, redact, baseline), encoding="utf-8")
    pq.write_table(done.rows, out / "flagged.parquet")
    return [out / name for name in ("audit.html", "audit.json", "audit.md", "flagged.parquet")]


def redacted(done: Audit) -> Audit:
    """The same with ids hashed where they could hold text."""
    findings = tuple(
        replace(f, row_ids=tuple(map(_hashed, f.row_ids)), counter_row_ids=tuple(map(_hashed, f.counter_row_ids)))
        for f in done.findings
    )
    ids = pa.array([_hashed(i) for i in done.rows["pair_id"].to_pylist()], pa.string())
    return replace(done, findings=findings, rows=done.rows.set_column(0, "pair_id", ids))


def _hashed(name: str) -> str:
    if PLAIN_ID.fullmatch(name):
        return name
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def summary(done: Audit, baseline: Comparison | None = None, most: int = 8) -> str:
    """What the terminal says."""
    lines = [
        f"{done.verdict.upper()}  {HEADLINES[done.verdict]}",
        f"  {size(done)}",
    ]
    if baseline:
        lines += _block(
            "worse than before" if baseline.worse else "no worse than before", compared(baseline, quoted), most
        )
    lines += _block("learned", [*learned(done, quoted), *_taught(done)], most)
    lines += _block("why", [r for r in done.reasons if not r.startswith(("block: ", "high: "))], most)
    lines += _findings(done.findings, most)
    lines += _block("probe", [f"{r.accuracy:6.1%} right {r.bits:+.3f} bits  {of_rung(r)}" for r in done.probe], most)
    lines += _block("residual", [meaning(done.residual)[1]], 1)
    lines += _block("limits", [limits(done)], 1)
    return "\n".join([*lines, *_block("not tested", done.not_tested, most)])


def _taught(done: Audit) -> list[str]:
    return [
        f"It learns to {what} {', '.join(quoted(f, 30) for f in side)}."
        for what, side in zip(("write", "avoid"), taught(done.findings), strict=True)
        if side
    ]


def _block(title: str, items: Sequence[str], most: int) -> list[str]:
    """Lines under a title, no more than `most`."""
    if not items:
        return []
    more = [f"    … and {len(items) - most:,} more"] if len(items) > most else []
    return [f"  {title}", *(f"    {one_line(i, 240)}" for i in items[:most]), *more]


def _findings(findings: Sequence[Finding], most: int) -> list[str]:
    """The gravest, in columns; the text comes last, so that no wide letter moves a column."""
    if not findings:
        return []
    rows = [
        f"    {f.severity:<9}{f.coverage:>7.1%}{f.purity:>9.1%}{f.pull:>+9.3f}{f.z:>8.1f}{f.z_length_adjusted:>13.1f}  "
        f"{f.verdict:<10}{f.family:<11}{quoted(f.feature, 40)}"
        for f in findings[:most]
    ]
    head = f"    {'':<9}{'pairs':>7}{'chosen':>9}{'pull':>9}{'z':>8}{'equal length':>13}  {'class':<10}{'family':<11}"
    more = [f"    … and {len(findings) - most:,} more in audit.json"] if len(findings) > most else []
    return ["  findings", head.rstrip(), *rows, *more]


def markdown(done: Audit, baseline: Comparison | None = None) -> str:
    """The audit as Markdown, for a pull request or a data card."""
    lines = [f"# Shortcut audit: {done.verdict}", "", f"**{HEADLINES[done.verdict].capitalize()}.** {size(done)}", ""]
    if baseline:
        title = "Worse than the earlier audit" if baseline.worse else "No worse than the earlier audit"
        lines += [f"## {title}", "", *_items(compared(baseline, cell)), ""]
    lines += ["## What a model would learn", "", *_items([*learned(done, cell), *_taught_cells(done)]), ""]
    lines += ["## What could have been missed", "", missed(done), "", plain(limits(done)), ""]
    lines += ["## Why", "", *_items([plain(r) for r in done.reasons]), ""] if done.reasons else []
    lines += [
        "## What answers alone give away", "", "| the probe knows | right | bits per pair |", "|---|---:|---:|",
        *(f"| {of_rung(r)} | {r.accuracy:.1%} | {r.bits:+.3f} |" for r in done.probe), "", meaning(done.residual)[1], "",
    ]  # fmt: skip
    if done.rules:
        lines += ["## If you had to guess", "", "| the answer with | is the | pairs | right |", "|---|---|---:|---:|"]
        lines += [f"| {cell(f, 60)} | {side} | {n:,} | {right / n:.1%} |" for f, side, n, right in done.rules] + [""]
    lines += ["## Findings", "", *_table(done.findings), ""]
    lines += ["## What could not be tested", "", *_items([plain(t) for t in done.not_tested])]
    return "\n".join([*lines, "", "What each number means: docs/audit.md.", ""])


def _taught_cells(done: Audit) -> list[str]:
    sides = zip(("write", "avoid"), taught(done.findings), strict=True)
    return [f"It learns to {what} {' '.join(cell(f, 60) for f in side)}" for what, side in sides if side]


def _items(items: Sequence[str]) -> list[str]:
    more = [f"- … and {len(items) - MOST:,} more"] if len(items) > MOST else []
    return [*(f"- {i}" for i in items[:MOST]), *more]


def _table(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return ["None."]
    rows = [
        f"| {f.severity} | {cell(f.feature)} | {f.family} | {f.coverage:.1%} | {f.purity:.1%} | {f.pull:+.3f} | {f.z:.1f} | "
        f"{f.z_length_adjusted:.1f} | {f.p_adjusted:.1e} | {f.verdict} |"
        for f in findings[:SHOWN]
    ]
    left = [] if len(findings) <= SHOWN else ["", f"The {SHOWN} gravest of {len(findings):,}; all are in audit.json."]
    return [
        "| severity | feature | family | of pairs | chosen | pull | z | z at equal length | p | class |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---|", *rows, *left,
    ]  # fmt: skip
