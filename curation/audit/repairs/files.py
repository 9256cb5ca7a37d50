"""A repair as files: pairs, manifest, proof as JSON and to read, and the audit of what came out."""

import html
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curation.audit.reading import corpus_of
from curation.audit.repairs.proof import Checked, Half, Proof
from curation.audit.repairs.pulls import Pull
from curation.audit.repairs.repair import Repair
from curation.errors import one_line

SHOWN = 60  # features in proof.md; proof.json has all


def write(done: Repair, out: Path, redact: bool = False) -> list[Path]:
    """pairs.parquet, manifest.parquet, proof.json, proof.md and the files of the new audit in `out`."""
    from curation.audit.report import write as write_audit

    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(done.outcome.rows, out / "pairs.parquet")
    pq.write_table(done.manifest, out / "manifest.parquet")
    (out / "proof.json").write_text(json.dumps(proof_of(done), indent=1, ensure_ascii=True, allow_nan=False) + "\n")
    (out / "proof.md").write_text(markdown(done), encoding="utf-8")
    write_audit(done.after, corpus_of(done.outcome.rows), out, redact)
    return [out / name for name in ("pairs.parquet", "manifest.parquet", "proof.json", "proof.md", "audit.json")]


def proof_of(done: Repair) -> dict[str, Any]:
    """proof.json: the proof, and what became of the rows."""
    return {**done.proof.as_dict(), "rows": accounted(done), "left": done.outcome.reasons()}


def accounted(done: Repair) -> dict[str, int]:
    """How many rows are as they were, and what became of the others."""
    actions: list[str] = done.manifest["action"].to_pylist()
    found = {name: actions.count(name) for name in ("changed", "weighted", "offset", "added", "dropped")}
    return {"as_they_were": done.outcome.rows.num_rows - sum(list(found.values())[:4]), **found}


def markdown(done: Repair) -> str:
    """The proof to read."""
    proof = done.proof
    return "\n".join([
        f"# Repair by {proof.method}: {'proven' if proof.proven else 'not proven'}", "", *summary_lines(done), "",
        *(f"- {_cell(s)}" for s in (*proof.says, *proof.advice)), "",
        "## Listed features", "",
        "Pull: how hard the loss pulls at its first step, counted anew from the texts, with its 95 % interval over prompts. "
        f"Equivalent: |pull| ≤ {proof.tolerance:g}; (interval): and so is the whole interval.", "",
        "| feature | family | pull before | pull after | equivalent |", "|---|---|---|---|---|",
        *(_row(c) for c in proof.checked[:SHOWN]), "",
        *_bits(proof), *_fresh(proof), *_halves(proof), "## Rows", "", "| what became of them | rows |", "|---|---|",
        *(f"| {name.replace('_', ' ')} | {n:,} |" for name, n in accounted(done).items()), "",
        *(f"- dropped, {_cell(reason)}: {n:,}" for reason, n in done.outcome.reasons().items()), "",
    ])  # fmt: skip


def summary_lines(done: Repair) -> list[str]:
    """What the terminal and the page begin with."""
    proof = done.proof
    answered = [c for c in proof.checked if c.covered]
    held, others = sum(c.equivalent for c in answered), len(proof.checked) - len(answered)
    lines = [
        f"{proof.pairs[0]:,} pairs became {proof.pairs[1]:,}; {proof.kept:.1%} of the given ones are there; verdict "
        f"{proof.verdicts[0]}, now {proof.verdicts[1]}.",
        f"{held} of {len(answered)} listed features pull at most {proof.tolerance:g}.",
    ]  # fmt: skip
    if others:
        lines.append(f"{others} more are none of this method's.")
    if proof.ess < 0.9995:
        lines.append(f"The weights are worth {proof.ess:.1%} of the pairs (effective sample size).")
    return lines


def _row(c: Checked) -> str:
    verdict = "not this method's" if not c.covered else "yes" if c.equivalent else "no"
    inside = " (interval)" if c.covered and c.interval_inside else ""
    return f"| {_cell(c.feature)} | {c.family} | {_pull(c.before)} | {_pull(c.after)} | {verdict}{inside} |"


def _pull(p: Pull) -> str:
    return f"{p.value:+.4f} ({p.low:+.3f} … {p.high:+.3f})"


def _bits(proof: Proof) -> list[str]:
    b = proof.bits
    return [
        "## What words still tell", "",
        f"{b.before:.3f} bits a pair before, {b.after:.3f} after; the difference is {b.before - b.after:+.3f} "
        f"(95 % interval {b.low:+.3f} … {b.high:+.3f}, prompts drawn with replacement). Measured on {proof.bits_are_of}.", "",
    ]  # fmt: skip


def _fresh(proof: Proof) -> list[str]:
    listed = [f"- {_cell(t.feature)} ({t.family}), pull {pull:+.3f}" for t, pull in proof.fresh[:SHOWN]]
    return ["## New findings above info", "", *(listed or ["None."]), ""]


def _halves(proof: Proof) -> list[str]:
    """Each half, mended by what the other had listed."""
    if not proof.held_out:
        return []
    return [
        "## On prompts that did not choose it", "",
        "Each half of the prompts was mended by the features that an audit of the other half alone had listed.", "",
        "| half | pairs | listed | equivalent | largest pull before | after | kept | above info before | after |",
        "|---|---|---|---|---|---|---|---|---|", *(_half(i, h) for i, h in enumerate(proof.held_out, 1)), "",
    ]  # fmt: skip


def _half(number: int, h: Half) -> str:
    return (
        f"| {number} | {h.pairs:,} | {h.listed} | {h.equivalent} | {h.largest_before:.3f} | {h.largest_after:.4f} | "
        f"{h.kept:.1%} | {h.above_info_before} | {h.above_info_after} |"
    )


def _cell(text: str) -> str:
    """Text of the data as text: nothing that is markup, nothing that cannot be seen."""
    shown = one_line(text if text.strip(" ") else text.replace(" ", "␠"), 300)
    return html.escape(shown).replace("|", "&#124;").replace("`", "&#96;").replace("*", "&#42;").replace("[", "&#91;")
