"""Corrections made elsewhere (by people, mostly) as candidates: each answer beside its correction, joined by id.

Recognised, first match wins: raw_output with revised_output; original with corrected, correction, revised or edited; and the
same words as `…_output`, `…_answer`, `…_response`. A row whose prompt was edited too is set aside: its two sides answer
different questions.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curation.schema import CANDIDATES, candidate_id, canonical_json
from curation.schema import prompt_id as id_of
from curation.source import BadRow, collect, find_prompt, with_names
from curation.stage import Outcome

BEFORE, AFTER = ("raw", "original", "old"), ("revised", "corrected", "correction", "edited", "new")
WHAT = ("_output", "_answer", "_response", "_completion", "")
READ = CANDIDATES.append(pa.field("original_id", pa.string()))
SIDES = ("policy", "correction")


def read_corrections(
    spec: str, limit: int | None = None, split: str | None = None, rename: Mapping[str, str] | None = None
) -> Outcome:
    """Two rows of schema.CANDIDATES and `original_id` for every correction. Raises InputError."""
    read = collect(
        spec, limit, split, with_names(_pair, rename), pa.schema([*READ, ("correction", pa.string())]), "candidate_id"
    )
    rows = []
    for row in read.rows.to_pylist():
        text = row.pop("correction")
        sampling = canonical_json({"corrects": row["candidate_id"]})
        own = {"origin": "correction", "model": f"{row['model']}+correction", "sampling": sampling, "completion": text}
        made = candidate_id(row["prompt_id"], own["model"], "correction", sampling, text)
        rows += [row, {**row, **own, "candidate_id": made}]
    return Outcome(pa.Table.from_pylist(rows, schema=READ), read.dropped)


def _pair(row: Mapping[str, Any], source: str) -> "dict[str, Any] | BadRow":
    names = next(
        ((b + w, a + w, b, a) for b in BEFORE for a in AFTER for w in WHAT if b + w in row and a + w in row), None
    )
    if names is None:
        return BadRow("no_known_columns", ", ".join(row)[:120])
    before, after = (row[n] for n in names[:2])
    if not all(isinstance(t, str) and t.strip() for t in (before, after)):
        return BadRow("empty_answer", " and ".join(names[:2]))
    if before == after:
        return BadRow("no_difference", "the answer was left as it was")
    prompts = [find_prompt(_own(row, prefix))[0] for prefix in names[2:]]
    if isinstance(prompts[0], BadRow):
        return prompts[0]
    if prompts[1] != prompts[0] and not isinstance(prompts[1], BadRow):
        return BadRow("prompt_changed", "question and answer were both edited")
    pid, model = id_of(prompts[0]), str(row.get("model") or source)
    sampling = canonical_json({"imported": True})
    cid = candidate_id(pid, model, "policy", sampling, before)
    return {
        "prompt_id": pid, "prompt": prompts[0], "source": str(row.get("source") or source), "candidate_id": cid,
        "completion": before, "finish_reason": "stop", "origin": "policy", "model": model, "sampling": sampling,
        "original_id": cid, "correction": after,
    }  # fmt: skip


def _own(row: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The columns of one side without their prefix, over the columns both share."""
    shared = {k: v for k, v in row.items() if not k.startswith((*BEFORE, *AFTER))}
    return shared | {k.removeprefix(f"{prefix}_"): v for k, v in row.items() if k.startswith(f"{prefix}_")}
