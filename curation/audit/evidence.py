"""Shortcut or quality? What speaks for either, finding by finding; never one number.

A finding says that a feature predicts the label. Whether a model should learn it is a judgement; here is the evidence
that needs no model: does the feature go with the answer whatever was asked (`strata`, `swapped`), was it in the prompt
(`copied`), is it length in disguise, does it tell which model wrote the answer rather than which answer is better
(`source`), does it hold on trusted labels (`gold`), is it of a kind that is never a preference.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.audit import counting, nearby
from curation.audit.codes import codes
from curation.audit.corpus import Chunk, Corpus
from curation.audit.features import workspace
from curation.audit.signed import sided
from curation.audit.strata import Heterogeneity
from curation.pair_source import SIDES

ARTIFACT, STYLE, CONTENT, UNDECIDED = "artifact", "style", "content", "undecided"
STYLES = ("opener", "closer", "format", "number", "lexicon", "whitespace", "language", "script", "token")


class Evidence(NamedTuple):
    """One test, what it gave, and what that speaks for: artifact, content or nothing."""

    test: str
    value: float
    says: str
    speaks_for: str


class Beside(NamedTuple):
    """What stands beside each of F features."""

    present: np.ndarray  # int64 (F, 2): pairs whose chosen, whose rejected answer has it
    one_sided: np.ndarray  # int64 (F,)
    copied: np.ndarray  # int64 (F,): of those, pairs whose prompt has it too
    pairs: int


def beside(corpus: Corpus, keys: np.ndarray, limit: int, workers: int) -> Beside:
    """Count what `Beside` holds for the features `keys`, in the first `limit` pairs."""
    works, tables = [workspace(corpus) for _ in range(workers)], tuple(codes())
    room = 1 << int(np.ceil(np.log2(max(64, 4 * len(keys)))))
    table, numbers = np.zeros(room, np.uint64), np.zeros(room, np.int64)
    counting.enter(keys, table, numbers)
    frequent = np.zeros(4 * room, np.uint8)
    counting.mark_buckets(keys, frequent)
    seen = [np.zeros((len(keys), 4), np.int64) for _ in range(workers)]
    in_prompt, stamps = [np.zeros(len(keys), np.int64) for _ in range(workers)], [0] * workers

    def one(chunk: Chunk, worker: int) -> None:
        stamps[worker] = nearby.witness(
            chunk.texts, chunk.bounds, tables, works[worker], frequent, table, numbers, in_prompt[worker], stamps[worker],
            seen[worker],
        )  # fmt: skip

    corpus.over(one, workers, limit)
    total = np.sum(seen, axis=0)
    return Beside(total[:, :2], total[:, 2], total[:, 3], limit)


def swapped_purity(present: np.ndarray, pairs: int) -> float:
    """How often the feature would be on the chosen side if each chosen answer met another prompt's rejected one."""
    chosen, rejected = (present / max(1, pairs)).tolist()
    ahead, behind = chosen * (1 - rejected), rejected * (1 - chosen)
    return ahead / (ahead + behind) if ahead + behind > 0 else 0.5


def model_pairs(columns: Mapping[str, pa.DictionaryArray], pairs: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(stratum of each pair: which two models; which of the two was chosen: ±1), or None without such columns."""
    names = sided(columns).get("model", {})
    if set(names) != set(SIDES):
        return None
    a, b = (columns[names[s]].cast(pa.string()) for s in SIDES)
    values = pc.unique(pa.concat_arrays([a, b]).drop_null())
    index = [np.asarray(pc.index_in(c, values).fill_null(-1)).astype(np.int64)[:pairs] for c in (a, b)]
    low, high = np.minimum(*index), np.maximum(*index)
    stratum = np.where((low >= 0) & (low != high), low * len(values) + high, -1)
    return stratum, np.where(index[0] == low, 1, -1)


def z_within_models(pairs: np.ndarray, signs: np.ndarray, models: tuple[np.ndarray, np.ndarray]) -> float:
    """Cochran-Mantel-Haenszel z of feature and label within pairs of the same two models, each model's habit of
    having the feature and of winning allowed for. A feature that only one model has adds nothing."""
    stratum, first_chosen = models[0][pairs], models[1][pairs]
    known = stratum >= 0
    if not known.any():
        return float("nan")
    _, at = np.unique(stratum[known], return_inverse=True)
    won = first_chosen[known] > 0
    has = won == (signs[known] > 0)  # the first model of the two has the feature
    n = np.bincount(at).astype(float)
    wins, having, both = (np.bincount(at, w) for w in (won, has, won & has))
    deviation = both - wins * having / n
    variance = wins * (n - wins) * having * (n - having) / np.maximum(1, n**2 * (n - 1))
    total = float(variance.sum())
    # has and won agree where the feature is on the chosen side
    return float(deviation.sum() / total**0.5) if total > 1e-9 else 0.0


def collected(
    purity: float, varies: Heterogeneity, swapped: float | None, copied: float | None, z: float, z_length: float,
    z_models: float | None, gold: tuple[int, int] | None,
) -> tuple[Evidence, ...]:  # fmt: skip
    """Every test that could be made."""
    found = []
    if varies.strata > 1:
        same = varies.i_squared < 0.5 and not varies.opposed
        says = f"the same in {varies.strata} kinds of prompts" if same else "differs with the prompt"
        says = "turns round with the prompt" if varies.opposed else says
        found.append(Evidence("prompt strata, I²", varies.i_squared, says, ARTIFACT if same else CONTENT))
    if swapped is not None:
        same = abs(swapped - 0.5) >= 0.75 * abs(purity - 0.5)
        says = "tells the sides of unrelated prompts apart just as well" if same else "weaker between unrelated prompts"
        found.append(Evidence("answers swapped between prompts, purity", swapped, says, ARTIFACT if same else CONTENT))
    if copied is not None:
        much = copied >= 0.5
        says = "mostly taken from the prompt" if much else "not from the prompt"
        found.append(Evidence("in the prompt too, share", copied, says, CONTENT if much else ""))
    kept = abs(z_length) >= 0.6 * abs(z) and z_length * z > 0
    says = "not explained by length" if kept else "mostly length"
    found.append(Evidence("z at equal length", z_length, says, "" if kept else STYLE))
    if z_models is not None and not np.isnan(z_models):
        gone = abs(z_models) < 2
        says = "vanishes between answers of the same two models" if gone else "holds between the same two models"
        found.append(Evidence("z within model pairs", z_models, says, ARTIFACT if gone else ""))
    if gold is not None and sum(gold) >= 10:
        share = gold[0] / sum(gold)
        gone = (share - 0.5) * (purity - 0.5) <= 0 or abs(share - 0.5) < 0.25 * abs(purity - 0.5)
        says = "vanishes on trusted labels" if gone else "holds on trusted labels"
        found.append(Evidence("purity on trusted labels", share, says, ARTIFACT if gone else CONTENT))
    return tuple(found)


def judged(evidence: tuple[Evidence, ...], family: str, never_legitimate: bool) -> str:
    """The class the evidence speaks for: artifact, style, content or undecided."""
    by_name = {e.test: e for e in evidence}
    decisive = [by_name.get(n) for n in ("z within model pairs", "purity on trusted labels")]
    if never_legitimate or any(e and e.speaks_for == ARTIFACT for e in decisive):
        return ARTIFACT
    content = sum(e.speaks_for == CONTENT for e in evidence)
    artifact = sum(e.speaks_for == ARTIFACT for e in evidence)
    if family in STYLES or any(e.speaks_for == STYLE for e in evidence):
        return STYLE if content <= artifact else UNDECIDED
    if content > artifact:
        return CONTENT
    return ARTIFACT if family == "column" else UNDECIDED
