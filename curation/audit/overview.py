"""What a set looks like at large: measures of both sides, who wins at which ratio of lengths, which model beats which."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.audit.signed import sided
from curation.pair_source import SIDES

RATIOS = np.array([1.05, 1.25, 1.6, 2.0, 3.0, 5.0])  # longer / shorter, where one bin ends and the next begins
MOST_MODELS = 12


class Curve(NamedTuple):
    """Pairs whose longer answer has from `at_least` to `below` times the characters of the shorter."""

    at_least: float
    below: float | None
    pairs: int
    longer_chosen: float  # share; 0.5 where there is no pair


class Match(NamedTuple):
    """How often one model's answer was chosen against another's."""

    model: str
    against: str
    chosen: int
    rejected: int


def means(values: Iterable[tuple[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Of each measure: how often the chosen side has more, of the pairs in which the sides differ."""
    found = {}
    for name, v in values:
        more, less = int((v[:, 0] > v[:, 1]).sum()), int((v[:, 0] < v[:, 1]).sum())
        found[name] = {
            "chosen_more": more / max(1, more + less), "differ": (more + less) / max(1, len(v)),
            "chosen_mean": float(v[:, 0].mean()), "rejected_mean": float(v[:, 1].mean()),
        }  # fmt: skip
    return found


def length_curve(characters: np.ndarray) -> tuple[Curve, ...]:
    """The win rate of the longer answer by how much longer it is. `characters`: (N, 2)."""
    ratio = np.maximum(*characters.T) / np.maximum(1, np.minimum(*characters.T))
    longer = characters[:, 0] > characters[:, 1]
    bins = np.searchsorted(RATIOS, ratio, "right")
    edges = [1.0, *RATIOS.tolist()]
    differs = characters[:, 0] != characters[:, 1]
    found = []
    for i, low in enumerate(edges):
        mine = (bins == i) & differs
        n = int(mine.sum())
        found.append(
            Curve(low, edges[i + 1] if i + 1 < len(edges) else None, n, float(longer[mine].mean()) if n else 0.5)
        )
    return tuple(found)


def matches(columns: Mapping[str, pa.DictionaryArray]) -> tuple[Match, ...]:
    """Wins and losses among the commonest models, where there are columns that name them."""
    names = sided(columns).get("model", {})
    if set(names) != set(SIDES):
        return ()
    both = pa.table({s: columns[names[s]].cast(pa.string()) for s in SIDES}).drop_null()
    seen = pc.value_counts(
        pa.chunked_array([*both["chosen"].chunks, *both["rejected"].chunks], pa.string())
    ).to_pylist()
    common = sorted(seen, key=lambda c: (-c["counts"], c["values"]))[:MOST_MODELS]
    kept = {c["values"] for c in common}
    rows = both.group_by(list(SIDES)).aggregate([([], "count_all")]).to_pylist()
    wins = {(r["chosen"], r["rejected"]): r["count_all"] for r in rows if {r["chosen"], r["rejected"]} <= kept}
    order = [c["values"] for c in common]
    return tuple(
        Match(a, b, wins.get((a, b), 0), wins.get((b, a), 0))
        for i, a in enumerate(order)
        for b in order[i + 1 :]
        if (a, b) in wins or (b, a) in wins
    )
