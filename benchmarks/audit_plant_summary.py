"""The cells of audit_plants.py in few numbers: per plant, per size of plant, false alarms, and what was missed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

Cell = dict[str, Any]
SURE, CERTAIN = 0.9, 0.95  # predicted power from which on a plant should be found, and a miss is one
EXAMPLES = 3
PLAIN = ("text", "byte", "format")  # kinds of which the detection limit speaks


def summary(cells: Sequence[Cell]) -> dict[str, Any]:
    told = [(cell, plant) for cell in cells for plant in cell["plants"]]
    return {
        "audits": len(cells), "seconds": sum(c["seconds"] for c in cells), "plants": per_plant(told),
        "detection_limit": honesty(told), "null": false_alarms(cells), "misses": misses(told),
        "byte_plants_missed": sum(
            not p["found"] for _, p in told if p["kind"] == "byte" and p["predicted"] >= CERTAIN
        ),
    }  # fmt: skip


def mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


def _name(plant: Cell) -> str:
    return "twenty words" if plant["plant"].endswith("of 20") else str(plant["plant"])


def per_plant(told: Sequence[tuple[Cell, Cell]]) -> dict[str, dict[str, Any]]:
    """Of each plant where the limit promises to find it; the last column is of its other cells."""
    by_name: dict[str, list[tuple[Cell, Cell]]] = defaultdict(list)
    for cell, plant in told:
        by_name[_name(plant)].append((cell, plant))
    return {name: _row(some) for name, some in by_name.items()}


def _row(told: list[tuple[Cell, Cell]]) -> dict[str, Any]:
    due = [p for _, p in told if p["predicted"] >= SURE or p["kind"] == "decoy"]
    found = [p for p in due if p["found"]]
    gains = [max(c["probe_gain"].values()) for c, p in told if c["probe_gain"] and len(c["plants"]) == 1]
    return {
        "kind": told[0][1]["kind"], "due": len(due), "found": mean(p["found"] for p in due),
        **{how: mean(p["relation"] == how for p in found) for how in ("exact", "contained", "rows")},
        "one_finding": mean(p["above_info"] == 1 for p in found if p["above_info"]),
        "info_only": mean(p["above_info"] == 0 for p in found),
        "direction": mean(p["direction"] for p in found),
        "coverage_error": mean(p["coverage_error"] for p in found), "purity_error": mean(p["purity_error"] for p in found),
        "f1": mean(p["f1"] for p in found), "probe_gain_bits": mean(gains),
    }  # fmt: skip


def honesty(told: Sequence[tuple[Cell, Cell]]) -> list[dict[str, Any]]:
    """Share found beside what the detection limit says, per size of plant."""
    by_size: dict[tuple[int, float, float], list[Cell]] = defaultdict(list)
    for cell, plant in told:
        if plant["kind"] in PLAIN and plant["plant"] != "language":
            by_size[cell["pairs"], cell["coverage"], cell["purity"]].append(plant)
    return [
        {"pairs": n, "coverage": c, "purity": p, "plants": len(some), "predicted": mean(s["predicted"] for s in some),
         "found": mean(s["found"] for s in some)}
        for (n, c, p), some in sorted(by_size.items())
    ]  # fmt: skip


def false_alarms(cells: Sequence[Cell]) -> dict[str, Any]:
    """Of audits with null labels: findings that nothing planted accounts for."""
    out = {}
    for what, some in (
        ("nothing planted", [c for c in cells if not c["plants"]]),
        ("planted", [c for c in cells if c["plants"]]),
    ):
        counted = [c["false"] for c in some if c["false"] is not None]
        examples = [f"{c['plants'][0]['plant'] if c['plants'] else ''}: {c['false'][0]}" for c in some if c["false"]]
        out[what] = {
            "audits": len(counted), "with_any": mean(bool(f) for f in counted), "findings_an_audit": mean(map(len, counted)),
            "examples": examples[:10],
        }  # fmt: skip
    return out


def misses(told: Sequence[tuple[Cell, Cell]]) -> list[dict[str, Any]]:
    """Plants that should have been found and were not, or not in their exact text or more than once; a few of each."""
    seen: dict[tuple[str, str], int] = defaultdict(int)
    out = []
    for cell, plant in told:
        wrong = fault(plant)
        if wrong and seen[_name(plant), wrong] < EXAMPLES:
            seen[_name(plant), wrong] += 1
            keys = ("planted", "predicted", "said", "family", "severity", "others", "f1")
            where = {k: cell[k] for k in ("base", "pairs", "labels", "coverage", "purity")}
            out.append({"plant": plant["plant"], "fault": wrong, **where, **{k: plant[k] for k in keys if k in plant}})
    return sorted(out, key=lambda m: (m["fault"], m["plant"]))


def fault(plant: Cell) -> str:
    if plant["kind"] == "decoy":
        return "a decoy was reported" if plant["found"] else ""
    if plant["predicted"] < CERTAIN:
        return ""
    if not plant["found"]:
        return "not found"
    if not plant["direction"]:
        return "wrong direction"
    if plant["relation"] != "exact":
        return f"not exact: {plant['relation']}"
    return "several findings" if plant["above_info"] > 1 else ""


def printed(found: dict[str, Any]) -> str:
    def cell(value: Any) -> str:
        return "     -" if value is None else f"{value:6.3f}" if isinstance(value, float) else f"{value!s:>6}"

    columns = ("due", "found", "exact", "contained", "one_finding", "info_only", "direction", "coverage_error", "f1")
    lines = [f"{'plant':30} " + " ".join(f"{c[:9]:>9}" for c in columns) + "  probe gain"]
    for name, row in found["plants"].items():
        shown = " ".join(f"{cell(row[c]):>9}" for c in columns)
        lines.append(f"{name:30} {shown}  {cell(row['probe_gain_bits'])}")
    lines += ["", "missed or inexact"]
    lines += [
        f"  {m['fault']:22} {m['plant']:26} N={m['pairs']} {m['labels']} {m['coverage']:.1%} {m['purity']}"
        + (f"  said {m['said']!r:.60} ({m['family']}, {m['severity']}) beside {m['others']}" if "said" in m else "")
        for m in found["misses"]
    ]
    lines += ["", "pairs  coverage purity  predicted found"]
    lines += [
        f"{h['pairs']:6} {h['coverage']:8.1%} {h['purity']:6} {h['predicted']:9.2f} {h['found']:6.2f}"
        for h in found["detection_limit"]
    ]
    lines += [f"false findings, {k}: {v}" for k, v in found["null"].items()]
    return "\n".join(lines)
