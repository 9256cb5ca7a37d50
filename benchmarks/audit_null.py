"""False alarms of the audit on pairs of your own: labels drawn by lot, prompt by prompt.

    python benchmarks/audit_null.py PAIRS... [--runs 200] [--most 3000] [--repeat-rows 10] [--one-answer 500]

The sides of all pairs of a prompt are swapped by lot, so nothing can be true; the whole audit runs on what comes out, and
counted are the runs with any finding, of whatever severity, combinations of words and triggers in prompts included.
`--repeat-rows` writes every pair several times under its prompt, `--one-answer` puts one canned answer into so many pairs,
on either side by lot: clustered data, as real sets have it.
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.audit import audit
from curation.pair_source import read_pairs

ROOT = Path(__file__).resolve().parents[1]
CANNED = "I am sorry, but I cannot help with that. Please let me know if there is anything else."


def swapped(rows: pa.Table, lot: np.ndarray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Both sides, those of every row whose lot is True swapped."""
    n = rows.num_rows
    for side, other in (("chosen", "rejected"), ("rejected", "chosen")):
        both = pa.chunked_array([*rows[side].chunks, *rows[other].chunks])
        taken = both.take(pa.array(np.arange(n) + n * lot))
        yield side, taken


def by_prompt(rows: pa.Table, seed: int) -> pa.Table:
    """Labels drawn by lot, the same for all pairs of a prompt."""
    names, prompt = np.unique(np.array(rows["prompt_id"].to_pylist()), return_inverse=True)
    lot = (np.random.default_rng(seed).random(len(names)) < 0.5)[prompt]
    columns = dict(swapped(rows, lot))
    for side, column in columns.items():
        rows = rows.set_column(rows.column_names.index(side), rows.schema.field(side), column)
    return rows


def one_run(rows: pa.Table, seed: int) -> tuple[int, int]:
    """(findings, of them above info) where labels are drawn by lot."""
    found = audit(by_prompt(rows, seed), workers=1).findings
    return len(found), sum(f.severity != "info" for f in found)


def repeated(rows: pa.Table, times: int) -> pa.Table:
    """Every pair `times` times under its prompt, told apart by a number at the end of both answers."""
    tables = []
    for k in range(times):
        columns = {"pair_id": pa.array([f"{i}-{k}" for i in rows["pair_id"].to_pylist()])}
        for side in ("chosen", "rejected"):
            turns = [[{**t[-1], "content": f"{t[-1]['content']} {k}"}] for t in rows[side].to_pylist()]
            columns[side] = pa.array(turns, rows.schema.field(side).type)
        table = rows
        for name, column in columns.items():
            table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
        tables.append(table)
    return pa.concat_tables(tables)


def canned(rows: pa.Table, pairs: int) -> pa.Table:
    """One answer in so many pairs, on either side by lot."""
    rng = np.random.default_rng(0)
    where = rng.choice(rows.num_rows, min(pairs, rows.num_rows), replace=False)
    sides = {s: rows[s].to_pylist() for s in ("chosen", "rejected")}
    for i in where.tolist():
        sides["chosen" if rng.random() < 0.5 else "rejected"][i] = [{"role": "assistant", "content": CANNED}]
    for side, column in sides.items():
        field = rows.schema.field(side)
        rows = rows.set_column(rows.column_names.index(side), field, pa.array(column, field.type))
    return rows


def null(rows: pa.Table, runs: int) -> dict[str, float]:
    with ProcessPoolExecutor(2) as pool:
        alarms = np.array(list(pool.map(partial(one_run, rows), range(runs), chunksize=5)))
    return {
        "pairs": rows.num_rows, "prompts": len(set(rows["prompt_id"].to_pylist())), "runs": runs,
        "runs_with_any": float((alarms[:, 0] > 0).mean()), "runs_with_any_above_info": float((alarms[:, 1] > 0).mean()),
        "findings_a_run": float(alarms[:, 0].mean()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--most", type=int, default=3000, help="pairs of each set")
    parser.add_argument("--repeat-rows", type=int, default=1, metavar="N", help="every pair N times under its prompt")
    parser.add_argument("--one-answer", type=int, default=0, metavar="N", help="one canned answer in N pairs")
    given = parser.parse_args()
    path = ROOT / "benchmarks/results/audit_null.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in given.pairs:
        rows = read_pairs(name).rows.slice(0, given.most)
        label = Path(name).stem
        if given.one_answer:
            rows, label = canned(rows, given.one_answer), f"{label}, one answer {given.one_answer} times"
        if given.repeat_rows > 1:
            rows, label = repeated(rows, given.repeat_rows), f"{label}, rows {given.repeat_rows} times"
        results[label] = null(rows, given.runs)
        print(label, json.dumps(results[label]), flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
