"""False alarms and power of the audit on pairs of your own: labels flipped by prompt, then planted words.

    python benchmarks/audit_null.py PAIRS... [--runs 200] [--most 4000]

Null: the sides of all pairs of a prompt are swapped by lot, so nothing can be true; counted are runs with any finding.
Plants: into such a set a made-up word goes to 1 %, 2 % and 5 % of the pairs, on the chosen side with purity 1, 0.9 or
0.75; counted are the plants found in their exact form, beside what the detection limit predicts for a pair count.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from curation.audit_features import Incidence, Texts, incidence, texts
from curation.audit_findings import findings
from curation.audit_statistics import ALPHA, test
from scipy import stats

from curation.audit import LEAST
from curation.pair_source import read_pairs

ROOT = Path(__file__).resolve().parents[1]


def flipped(found: Incidence, given: Texts, lot: np.ndarray) -> tuple[Incidence, Texts]:
    """The same set with the sides of every prompt whose lot is −1 swapped: only signs and numbers change."""
    turn = lot[given.groups]
    numbers = {k: np.where(turn[:, None] < 0, v[:, ::-1], v) for k, v in given.numbers.items()}
    signs = (found.signs * turn[found.pairs]).astype(np.int8)
    return dataclasses.replace(found, signs=signs), dataclasses.replace(given, numbers=numbers)


def null(rows: pa.Table, runs: int) -> dict[str, float]:
    given = texts(rows)
    found = incidence(given, LEAST)
    rng = np.random.default_rng(0)
    alarms = np.zeros(runs)
    for run in range(runs):
        signs, turned = flipped(found, given, rng.choice([-1, 1], given.prompts))
        alarms[run] = (test(signs, turned).p_adjusted <= ALPHA).sum()
    return {"pairs": given.pairs, "prompts": given.prompts, "runs_with_any": float((alarms > 0).mean()),
            "false_features_a_run": float(alarms.mean())}  # fmt: skip


def plants(rows: pa.Table, runs: int) -> dict[str, dict[str, float]]:
    """{coverage/purity: share of plants found, and the power a sign test has at the divisor of that set}."""
    rng, out = np.random.default_rng(1), {}
    for coverage in (0.01, 0.02, 0.05):
        for purity in (1.0, 0.9, 0.75):
            hits, power = [], []
            for run in range(runs):
                hit, tried, n = one_plant(rows, coverage, purity, f"zyx{run}omma", rng)
                hits.append(hit)
                need = stats.binom.isf(ALPHA / tried / 2, n, 0.5) + 1
                power.append(float(stats.binom.sf(need - 1, n, purity)))
            out[f"{coverage}/{purity}"] = {"found": float(np.mean(hits)), "predicted": float(np.mean(power))}
    return out


def one_plant(
    rows: pa.Table, coverage: float, purity: float, word: str, rng: np.random.Generator
) -> tuple[bool, int, int]:
    """(found in its exact form, the divisor, pairs planted)."""
    sides = {s: [t[-1]["content"] for t in rows[s].to_pylist()] for s in ("chosen", "rejected")}
    lot = rng.random(rows.num_rows) < 0.5
    for i in np.flatnonzero(lot):
        sides["chosen"][i], sides["rejected"][i] = sides["rejected"][i], sides["chosen"][i]
    n = round(coverage * rows.num_rows)
    for i in rng.choice(rows.num_rows, n, replace=False):
        side = "chosen" if rng.random() < purity else "rejected"
        words = sides[side][i].split(" ")
        words.insert(int(rng.integers(0, len(words) + 1)), word)
        sides[side][i] = " ".join(words)
    for s, column in sides.items():
        turns = pa.array([[{"role": "assistant", "content": t}] for t in column], rows.schema.field(s).type)
        rows = rows.set_column(rows.column_names.index(s), s, turns)
    given = texts(rows)
    found = incidence(given, LEAST)
    tests = test(found, given)
    listed, _ = findings(found, tests, given)
    return any(f.feature == word for f in listed), tests.tried, n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--plant-runs", type=int, default=10)
    parser.add_argument("--most", type=int, default=4000, help="pairs of each set")
    given = parser.parse_args()
    path = ROOT / "benchmarks/results/audit_null.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in given.pairs:
        rows = read_pairs(name).rows
        rows = rows.slice(0, given.most)
        results[Path(name).stem] = {"null": null(rows, given.runs)}
        if given.plant_runs:
            results[Path(name).stem]["plants"] = plants(rows, given.plant_runs)
        print(Path(name).stem, json.dumps(results[Path(name).stem]), flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
