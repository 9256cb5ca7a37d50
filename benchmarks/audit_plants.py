"""PlantBench: shortcuts of every kind planted into pairs of your own, and whether the audit says exactly those.

    python benchmarks/audit_plants.py PAIRS... --quick            # one size, two cells a plant: minutes
    python benchmarks/audit_plants.py PAIRS... [--sizes 1000 2500 10000 0] [--labels null real] [--together 8] [--keep]

A cell is one audit: a set of N pairs, its labels swapped by lot prompt by prompt (`null`: whatever is reported besides
the plant and what hangs on it is false) or left (`real`), and a plant in a share of the rows (coverage), on the side it
stands for with a probability (purity). Measured are recall, the exact text (`exact`: the finding is the planted text;
`contained`: one lies within the other; `rows`: the right rows under another name), findings above info per plant,
direction, errors of coverage and purity against a count of the planted texts, F1 of the flagged rows, false findings, and
the share found beside what the audit's own detection limit promises. Cells go to --cells line by line (--keep goes on
from there), the summary to results/audit_plants.json.
"""

import argparse
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from audit_plant_kinds import CASES, NOTHING, Plant
from audit_plant_summary import printed, summary
from audit_planting import SIDES, Base, Truth, flipped, planted, read, table
from audit_reading import ROOT, Found, Report, audited, audited_by_command, critical_p, needed
from scipy import stats

COVERAGES, PURITIES = (0.001, 0.005, 0.01, 0.05, 0.2), (1.0, 0.9, 0.75)
QUICK = ((0.05, 0.9), (0.01, 1.0))
LEAST = 4  # pairs below which a cell is left out: no test can find it
ONE = 0.5  # Jaccard overlap from which on a finding is about the plant's rows
LOPSIDED = 2.5  # standard errors
RELATIONS = ("exact", "contained", "rows")


def relation(plant: Plant, found: Found) -> tuple[str, int]:
    """How the finding's text stands to the planted one, and −1 where it is what the other side has instead."""
    text = found.feature
    if text in plant.surfaces:
        return "exact", 1
    if text in plant.mirror:
        return "exact", -1
    named = any(n in text.casefold() for n in (n.casefold() for n in plant.names))
    if named and (not plant.families or found.family in plant.families):
        return "exact", 1
    for turn, pieces in ((1, plant.surfaces), (-1, plant.mirror)):
        if any(text.strip() and (text.strip() in p or p in text) for p in pieces):
            return "contained", turn
    return "rows", 1


def overlap(report: Report, found: Found, rows: set[int]) -> tuple[float, float]:
    """(Jaccard overlap, F1) of the finding's rows with the plant's."""
    known, size = report.rows_of(found)
    hits = min(len(rows), size * len(known & rows) / max(1, len(known)))
    return hits / max(1.0, size + len(rows) - hits), 2 * hits / max(1, size + len(rows))


def predicted(truth: Truth, purity: float, critical: float) -> float:
    """Power of the sign test that the audit's limit speaks of, given what stood in the set before the plant. Where pairs
    of a prompt agree, z = Σ D / √Σ D² with D a prompt's sum stands for the count."""
    of_plant = int((truth.placed & (truth.signs != 0)).sum())
    agree, against = (int((~truth.placed & (truth.signs == s * truth.direction)).sum()) for s in (1, -1))
    n = of_plant + agree + against
    if truth.squares == n:
        least = needed(n, critical) - agree
    else:
        net = float(stats.norm.isf(critical / 2)) * truth.squares**0.5
        least = int(np.ceil((net - agree + against + of_plant) / 2))
    return float(stats.binom.sf(least - 1, of_plant, purity))


def judged(truth: Truth, report: Report, purity: float, critical: float) -> dict[str, Any]:
    """What the audit made of one plant."""
    plant, rows = truth.plant, truth.rows
    about = []
    for f in report.findings:
        how, turn = relation(plant, f)
        share, f1 = overlap(report, f, rows)
        named = how == "exact" and f.feature not in plant.surfaces + plant.mirror
        if (share >= ONE and plant.measure is None) or named or (plant.decoy and how != "rows"):
            about.append((RELATIONS.index(how), -share, turn, f, f1))
    about.sort(key=lambda a: a[:2])
    told: dict[str, Any] = {
        "plant": plant.name, "kind": plant.kind, "planted": int(truth.placed.sum()), "one_sided": len(rows),
        "predicted": 0.0 if plant.decoy else predicted(truth, purity, critical), "found": bool(about),
    }  # fmt: skip
    if not about:
        return told
    how, _, turn, best, f1 = about[0]
    return {
        **told, "relation": RELATIONS[how], "said": best.feature, "family": best.family, "severity": best.severity,
        "members": list(best.members[:3]), "above_info": sum(a[3].severity != "info" for a in about),
        "others": [a[3].feature for a in about[1:4]],
        "direction": (best.chosen > best.rejected) == (truth.direction * turn > 0),
        "coverage_error": abs(best.coverage - truth.coverage),
        "purity_error": abs(best.purity - (truth.purity if turn > 0 else 1 - truth.purity)),
        "f1": f1,
    }  # fmt: skip


def false_findings(truths: Sequence[Truth], report: Report, made: Base) -> list[str] | None:
    """Findings that nothing planted accounts for: neither in text nor in rows, and lopsided where nothing was planted;
    None where a plant changes whole texts and anything may follow."""
    if any(t.plant.spills for t in truths):
        return None
    honest = [t for t in truths if not t.plant.decoy]
    anywhere = np.any([t.placed for t in honest], axis=0) if honest else np.zeros(made.pairs, bool)
    wrong = []
    for f in report.findings:
        flagged, _ = report.rows_of(f)
        inside = len(flagged & set(np.flatnonzero(anywhere).tolist())) >= ONE * len(flagged) > 0
        folded = replace(f, feature=f.feature.casefold())
        of_it = any(relation(t.plant, one)[0] != "rows" for t in honest for one in (f, folded))
        if not (inside or of_it) and (not honest or lopsided(f, made, ~anywhere)):
            wrong.append(f.feature)
    return wrong


def lopsided(found: Found, made: Base, rows: np.ndarray) -> bool:
    """Whether the finding's text is on one side more often in these rows alone, by a plain count. What is no text is
    taken to be."""
    stands: dict[str, Callable[[str, str], bool]] = {"opener": str.startswith, "closer": str.endswith}
    has = stands.get(found.family, str.__contains__)
    text = found.feature.casefold()
    sides = [np.array([has(made.texts[s][i].casefold(), text) for i in np.flatnonzero(rows)], int) for s in SIDES]
    signs = sides[0] - sides[1]
    one_sided = int(np.count_nonzero(signs))
    return one_sided == 0 or abs(int(signs.sum())) >= LOPSIDED * one_sided**0.5


@dataclass(frozen=True)
class Cell:
    base: str
    size: int
    labels: str
    coverage: float
    purity: float
    plants: tuple[str, ...]
    repeat: int

    @property
    def key(self) -> str:
        return json.dumps([self.base, self.size, self.labels, self.coverage, self.purity, self.plants, self.repeat])

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(self.key.encode()))


def measure(cell: Cell, base: Base, before: dict[str, float] | None, command: bool) -> dict[str, Any]:
    """One audit of one planted set; `before` are the probe's bits without plants."""
    rng = np.random.default_rng(cell.repeat)
    given = flipped(base, rng) if cell.labels == "null" else base
    plants = [p for name in cell.plants for p in CASES[name]]
    made, truths = planted(given, plants, cell.coverage, cell.purity, cell.rng)
    rows = table(made)
    started = time.perf_counter()
    report = (audited_by_command if command else audited)(rows)
    seconds = time.perf_counter() - started
    critical = critical_p(report.limit, report.pairs)
    gain = {k: v - before[k] for k, v in report.bits.items() if k in before} if before else {}
    return {
        "key": cell.key, "base": cell.base, "pairs": made.pairs, "labels": cell.labels, "coverage": cell.coverage,
        "purity": cell.purity, "verdict": report.verdict, "bits": report.bits, "probe_gain": gain, "critical": critical,
        "seconds": seconds, "false": false_findings(truths, report, made) if cell.labels == "null" else None,
        "plants": [judged(t, report, cell.purity, critical) for t in truths],
    }  # fmt: skip


def cases(wanted: Sequence[str], together: int) -> list[tuple[str, ...]]:
    """Plants that keep to themselves, several to an audit where asked for; the others alone."""
    packed = [n for n in wanted if together > 1 and _packs(CASES[n])]
    packs = [tuple(packed[i : i + together]) for i in range(0, len(packed), max(1, together))]
    return packs + [(n,) for n in wanted if n not in packed and n != NOTHING]


def _packs(plants: Sequence[Plant]) -> bool:
    return len(plants) == 1 and plants[0].kind in ("text", "byte", "format") and not plants[0].spills


def cells(given: argparse.Namespace, name: str, size: int) -> Iterator[Cell]:
    """The sets without plants first: the others are held against them."""
    grid = QUICK if given.quick else tuple(itertools.product(given.coverages, given.purities))
    for labels, repeat in itertools.product(given.labels, range(given.repeats)):
        yield Cell(name, size, labels, 0.0, 1.0, (NOTHING,), repeat)
        for (coverage, purity), plants in itertools.product(grid, cases(given.plants, given.together)):
            cell = Cell(name, size, labels, coverage, purity, plants, repeat)
            alone = CASES[plants[0]][0]
            if coverage * size < LEAST or ((alone.decoy or alone.repeat > 1) and purity != grid[0][1]):
                continue
            yield cell


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    kept = (
        [json.loads(line) for line in given.cells.read_text().splitlines()]
        if given.keep and given.cells.exists()
        else []
    )
    done = {c["key"]: c for c in kept}
    given.cells.parent.mkdir(parents=True, exist_ok=True)
    with given.cells.open("a" if given.keep else "w") as out:
        for path, size in itertools.product(given.pairs, given.sizes):
            base = read(path, size or None, 0)
            if size and base.pairs < size and size != min(given.sizes):
                continue  # `all` is 0
            before: dict[tuple[str, int], dict[str, float]] = {}
            for cell in cells(given, Path(path).stem, base.pairs):
                if cell.key not in done:
                    done[cell.key] = measure(cell, base, before.get((cell.labels, cell.repeat)), given.command)
                    out.write(json.dumps(done[cell.key], ensure_ascii=False) + "\n")
                    out.flush()
                if cell.plants == (NOTHING,):
                    before[cell.labels, cell.repeat] = done[cell.key]["bits"]
                if not given.quiet:
                    _say(done[cell.key])
    return list(done.values())


def _say(cell: dict[str, Any]) -> None:
    for p in cell["plants"][:1] if len(cell["plants"]) == 20 else cell["plants"]:
        said = f"{p['relation']:9} {p['said']!r:.40} {p['severity']}" if p["found"] else "-"
        print(
            f"{cell['pairs']:6} {cell['labels']:4} {cell['coverage']:5.1%} {cell['purity']:4} {p['plant']:30} "
            f"{p['predicted']:.2f} {said}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pairs", nargs="+", help="files of preference pairs")
    parser.add_argument("--quick", action="store_true", help="at most 2,500 pairs, two cells a plant, null labels")
    parser.add_argument("--sizes", type=int, nargs="+", help="pairs of a set; 0: all (1000 2500 10000 0)")
    parser.add_argument("--coverages", type=float, nargs="+", default=COVERAGES)
    parser.add_argument("--purities", type=float, nargs="+", default=PURITIES)
    parser.add_argument("--labels", nargs="+", choices=("null", "real"))
    parser.add_argument("--plants", nargs="+", choices=CASES, default=list(CASES), metavar="PLANT")
    parser.add_argument("--together", type=int, default=1, help="plants of text, bytes and format in one set")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--command", action="store_true", help="through the command line instead of in this process")
    parser.add_argument("--keep", action="store_true", help="go on from the cells already in --cells")
    parser.add_argument("--cells", type=Path, default=ROOT / "runs/audit_plants_cells.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/audit_plants.json")
    parser.add_argument("--quiet", action="store_true")
    given = parser.parse_args()
    given.sizes = given.sizes or ([2500] if given.quick else [1000, 2500, 10_000, 0])
    given.labels = given.labels or (["null"] if given.quick else ["null", "real"])
    found = summary(run(given))
    print(printed(found))
    given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
