"""Counterfactual edits: the listed features taken out of the side that has them alone, labels as they are.

In place every pair is mended so that no side has a listed feature alone. With `copies` the pairs stay and counter-
examples are added until the feature stands on the chosen side as often as on the rejected: a pair of which both sides
have it loses it on the side it speaks for; where those are too few, it moves from that side to the other, an opener or
closer as it is, a word with its sentence.
Narrow edits can worsen other features (Joshi & He 2022): the audit afterwards says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa

from curation.audit.repairs.cuts import editable, inserted, moved, without
from curation.audit.repairs.pairs import Gone, Made, Pairs, derived, new_rows, texts_of, with_texts
from curation.audit.repairs.pairs import without as rows_without
from curation.audit.repairs.places import Reader
from curation.audit.repairs.targets import Target, signs_of

KIND = "edited"
PASSES = 4  # one edit may make another feature one-sided
Sides = tuple[str, str]


@dataclass(frozen=True)
class Edit:
    """Listed features edited out of one side, in place or as copies."""

    tolerance: float = 0.01
    copies: bool = False
    name = "edit"
    by_targets = True

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made:
        able = [t for t in targets if editable(t)]
        left = [t for t in targets if not editable(t)]
        says = [f"no edit takes out {', '.join(repr(t.feature) for t in left[:8])}"] if left else []
        if not able:
            return Made(pairs.rows, says=says, covered=frozenset())
        made = self._copied(pairs, able, says, workers) if self.copies else _in_place(pairs, able, says, workers)
        return replace(made, covered=frozenset(able))

    def _copied(self, pairs: Pairs, targets: Sequence[Target], says: list[str], workers: int) -> Made:
        rows, listed = pairs.rows, pairs.rows.to_pylist()
        own = [int(r) for r in pairs.corpus.rows if listed[int(r)]["kind"] != KIND]
        texts, reader = list(zip(*texts_of(rows), strict=True)), Reader([t.number for t in targets])
        has = np.array([[reader.has(side) for side in sides] for sides in texts])  # (rows, 2, targets)
        net = np.asarray(signs_of(pairs.corpus, targets, workers).sum(1)).ravel().astype(np.int64)
        there, made = set(pairs.ids), list[dict[str, Any]]()
        for f in [f for _ in range(PASSES) for f in range(len(targets))]:  # a copy for one feature may tip another
            for i, sides in _against(targets[f], reader, texts, has[:, :, f], own, 1 if net[f] > 0 else -1):
                if not self._wanted(int(net[f]), rows.num_rows + len(made)):
                    break
                row = derived(listed[i], *sides, KIND)
                if row["pair_id"] not in there and sides[0] != sides[1]:
                    there.add(row["pair_id"])
                    made.append(row)
                    net += reader.has(sides[0]).astype(np.int64) - reader.has(sides[1])
        wanted = [self._wanted(int(n), rows.num_rows + len(made)) for n in net]
        short = [f"{t.feature!r} lacks {n:,}" for t, n in zip(targets, wanted, strict=True) if n]
        says = [*says, f"{len(made):,} counter-examples added"]
        says += [f"too few could be made: {'; '.join(short)}"] if short else []
        notes = {"added": len(made), "short": short}
        return Made(pa.concat_tables([rows, new_rows(made, rows.schema)]), notes=notes, says=says)

    def _wanted(self, net: int, size: int) -> int:
        """Counter-examples that bring |net| within the tolerance, itself counted with them."""
        return ceil(max(0.0, abs(net) - self.tolerance * size - 1e-9) / (1 + self.tolerance))


def _in_place(pairs: Pairs, targets: Sequence[Target], says: list[str], workers: int) -> Made:
    """Every pair in which one side alone has a listed feature, mended."""
    reader = Reader([t.number for t in targets])
    carriers = np.unique(signs_of(pairs.corpus, targets, workers).indices)
    (chosen, rejected), ids = texts_of(pairs.rows), pairs.ids
    texts: dict[int, Sides] = {}
    gone, why = list[Gone](), {}
    for row in np.sort(pairs.corpus.rows[carriers]).tolist():
        name, was = ids[row], (chosen[row], rejected[row])
        sides, edits = evened(was, targets, reader)
        if sides is None:
            gone.append((name, "edit_failed", f"no edit evens {edits[-1]!r}" if edits else ""))
        elif sides[0] == sides[1]:
            gone.append((name, "no_difference", "the sides differed only in what was edited"))
        elif sides != was:
            texts[row], why[name] = sides, "edited: " + ", ".join(dict.fromkeys(edits))
    return Made(rows_without(with_texts(pairs.rows, texts), gone), gone, why, {"edited": len(texts)}, says)


def evened(sides: Sides, targets: Sequence[Target], reader: Reader) -> tuple[Sides | None, list[str]]:
    """The sides of a pair edited until no listed feature stands on one alone, and the features edited; None: none does."""
    now, edits = list(sides), list[str]()
    for _ in range(PASSES * len(targets)):
        has = [reader.has(t) for t in now]
        uneven = np.flatnonzero(has[0] != has[1])
        if not len(uneven):
            return (now[0], now[1]), edits
        target = targets[int(uneven[0])]
        side = 0 if has[0][uneven[0]] else 1
        edits.append(target.feature)
        cut = without(now[side], target, reader)
        if cut is not None and cut.strip():
            now[side] = cut
            continue
        put = inserted(now[1 - side], target, reader)
        if put is None:
            return None, edits
        now[1 - side] = put
    return None, edits


def _against(
    target: Target, reader: Reader, texts: Sequence[Sides], has: np.ndarray, own: Sequence[int], speaks: int
) -> Iterator[tuple[int, Sides]]:
    """Copies that speak against a feature (`speaks`: +1 where it is the chosen side's): from pairs whose sides both have
    it first, then from pairs where it can move."""
    side = 0 if speaks > 0 else 1
    for move in (False, True):
        for i in own:
            if not has[i, side] or has[i, 1 - side] == move:
                continue
            mine, other = texts[i][side], texts[i][1 - side]
            cut = None if move else without(mine, target, reader)
            made = moved(mine, other, target, reader) if move else (cut, other) if cut and cut.strip() else None
            if made is not None:
                yield i, made if side == 0 else (made[1], made[0])
