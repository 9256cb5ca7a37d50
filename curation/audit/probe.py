"""How much of the preference can be told from the answers alone: a ladder of logistic probes, in bits per pair.

A probe scores the difference of two answers, σ(w·(φ(chosen) − φ(rejected))), without intercept, so that swapping the
sides swaps the answer. Folds hold out whole prompts. Bits are usable information (Ethayarajh et al. 2022, arXiv
2110.08420) against a coin's 1 bit: 0 says the probe knows nothing, below 0 that it is wrong about what it knows.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from curation.audit import kernel, logistic
from curation.audit.incidence import FAMILIES, Incidence
from curation.audit.strata import Strata

FOLDS = 5
MOST_FEATURES = 20_000  # the commonest, chosen without a look at the labels
MOST_PAIRS = 20_000
MOST_ENTRIES = 2_500_000
RIDGE_DENSE, RIDGE_SPARSE = 1.0, 64.0
SHAPES = ("character", "opener", "closer", "whitespace", "format", "lexicon", "script", "language")
REMOVED = (0, 1, 5, 20, 80, 320)  # findings taken away along the residual curve
CROSSED = 200  # features that are crossed with kinds of prompts


@dataclass(frozen=True)
class Rung:
    """What one set of features told on prompts that the probe had not seen."""

    name: str
    accuracy: float  # ties count half
    bits: float  # per pair
    per_pair: np.ndarray  # float64 (M,): bits the probe had of each pair's label

    @property
    def least_bits(self) -> float:
        """The lower end of the one-sided 95 % interval of `bits`."""
        return self.bits - 1.645 * float(self.per_pair.std()) / max(1, len(self.per_pair)) ** 0.5


@dataclass(frozen=True)
class Residual:
    """What words still tell once the strongest phenomena are taken away."""

    removed: int
    accuracy: float
    bits: float


@dataclass(frozen=True)
class Probe:
    """M pairs of whole prompts, the folds they are in, and the features probes are made of."""

    dense: np.ndarray  # float64 (M, measures): differences of measures
    length: np.ndarray  # float64 (M, 1): log-ratio of characters
    words: sparse.csr_matrix  # signs (M, features)
    which: np.ndarray  # int64 (features,): the feature of each column
    shapes: np.ndarray  # bool (features,)
    folds: np.ndarray  # int64 (M,)
    strata: Strata
    workers: int

    @property
    def pairs(self) -> int:
        return len(self.folds)

    def fresh_start(self) -> list[np.ndarray]:
        """Dual variables of each fold's fit."""
        return [np.full(int((self.folds != fold).sum()), 1e-3) for fold in range(FOLDS)]


def probe(
    found: Incidence, family: np.ndarray, measures: dict[str, np.ndarray], groups: np.ndarray, strata: Strata, workers: int
) -> Probe:  # fmt: skip
    """The first pairs as a probe sees them: whole prompts, MOST_ENTRIES signs at most. `measures`: (N, 2) each;
    `groups` (N,): the prompt of each pair."""
    limit = _whole(found, groups)
    values = {name: v[:limit] for name, v in measures.items()}
    dense = np.stack([np.arcsinh(v[:, 0]) - np.arcsinh(v[:, 1]) for v in values.values()], 1)
    length = np.log((values["characters"][:, :1] + 1) / (values["characters"][:, 1:] + 1))
    signs = sparse.csc_matrix((found.signs, found.pairs, found.start), shape=(found.pairs_read, found.size))
    usable = np.isin(family, [FAMILIES.index(f) for f in (*kernel.FAMILIES, "lexicon", "script", "language")])
    within = np.diff(signs[:limit].indptr) if limit < found.pairs_read else found.count
    order = np.argsort(-(within * usable), kind="stable")[:MOST_FEATURES]
    which = np.sort(order[(within * usable)[order] > 0])
    shapes = np.isin(family[which], [FAMILIES.index(f) for f in SHAPES])
    words = sparse.csr_matrix(signs[:, which])[:limit].astype(np.float32)
    words.sort_indices()
    return Probe(_scaled(dense), _scaled(length), words, which, shapes, _folds(groups[:limit]), strata, workers)


def _whole(found: Incidence, groups: np.ndarray) -> int:
    """How many of the first pairs are whole prompts and few enough."""
    share = min(1.0, MOST_ENTRIES / max(1, len(found.pairs)))
    most = min(MOST_PAIRS, found.pairs_read, max(1, int(share * found.pairs_read)))
    while most < found.pairs_read and groups[most] == groups[most - 1]:
        most += 1
    return most


def ladder(given: Probe, embeddings: np.ndarray | None = None) -> list[Rung]:
    """Rungs from length alone to words crossed with kinds of prompts; each has the features of the ones before it.
    `embeddings` (M or more, d): differences of the answers' embeddings, where a model is at hand."""
    dense = sparse.csr_matrix(given.dense)
    words = sparse.hstack([dense, given.words])
    rungs = [("format", sparse.hstack([dense, given.words[:, np.flatnonzero(given.shapes)]])), ("ngrams", words)]
    if embeddings is not None:
        words = sparse.hstack([words, sparse.csr_matrix(_scaled(embeddings[: given.pairs]))])
        rungs.append(("embeddings", words))
    rungs.append(("prompt", sparse.hstack([words, crossed(given)])))
    start = given.fresh_start()
    return [
        _dense_rung("length", given.length, given), _dense_rung("surface", given.dense, given),
        *(_rung(name, x.tocsr(), given, start) for name, x in rungs),
    ]  # fmt: skip


def crossed(given: Probe) -> sparse.csr_matrix:
    """Measures and the commonest words, each anew for every kind of prompt: what holds for some prompts only."""
    common = np.argsort(-np.diff(given.words.tocsc().indptr), kind="stable")[:CROSSED]
    base = sparse.hstack([sparse.csr_matrix(given.dense), given.words[:, np.sort(common)]]).tocsr()
    parts = [
        sparse.diags((given.strata.of[: given.pairs] == kind).astype(np.float32)) @ base
        for kind in range(min(given.strata.kinds, 16))
    ]
    return sparse.hstack(parts).tocsr()


def residual_curve(given: Probe, phenomena: Sequence[Sequence[int]], whole: Rung) -> list[Residual]:
    """Bits of the words rung without the strongest 1, 5, 20, … phenomena (lists of features). Steep: a few tokens carry
    the preference, and edits help. Flat: a fingerprint of who wrote the answers."""
    made = [Residual(0, whole.accuracy, whole.bits)]
    dense, start = sparse.csr_matrix(given.dense), given.fresh_start()
    for number in REMOVED[1:]:
        if number > len(phenomena) and made[-1].removed == len(phenomena):
            break
        gone = np.unique(
            np.concatenate([np.asarray(p, np.int64) for p in phenomena[:number]] or [np.zeros(0, np.int64)])
        )
        keep = np.flatnonzero(~np.isin(given.which, gone))
        rung = _rung("", sparse.hstack([dense, given.words[:, keep]]).tocsr(), given, start)
        made.append(Residual(min(number, len(phenomena)), rung.accuracy, rung.bits))
    return made


def _scaled(values: np.ndarray) -> np.ndarray:
    scale = np.sqrt((values**2).mean(0))
    made: np.ndarray = values / np.where(scale > 0, scale, 1)
    return made


def _folds(groups: np.ndarray) -> np.ndarray:
    """A fold per pair, drawn by prompt. Prompts stand in the order of their hashes, so their number is a lot."""
    found: np.ndarray = groups % FOLDS
    return found


def _rung(name: str, x: sparse.csr_matrix, given: Probe, alpha: list[np.ndarray]) -> Rung:
    """A rung of sparse features. `alpha`: where each fold's fit begins, and then where it ended."""
    x.sort_indices()
    start, columns, values = x.indptr.astype(np.int64), x.indices.astype(np.int64), x.data.astype(np.float64)
    margins = np.zeros(x.shape[0])

    def one(fold: int) -> None:
        taught, held = np.flatnonzero(given.folds != fold), np.flatnonzero(given.folds == fold)
        if len(taught) and len(held):
            w = np.zeros(x.shape[1])
            order = np.random.default_rng(fold).permutation(len(taught))
            logistic.fit(start, columns, values, taught, order, RIDGE_SPARSE, alpha[fold], w)
            logistic.margins(start, columns, values, held, w, margins)

    with ThreadPoolExecutor(max(1, given.workers)) as pool:
        list(pool.map(one, range(FOLDS)))
    return _measured(name, margins)


def _dense_rung(name: str, x: np.ndarray, given: Probe) -> Rung:
    """A rung of a few measures: Newton's method, exact."""
    margins = np.zeros(len(x))
    for fold in range(FOLDS):
        taught, held = given.folds != fold, given.folds == fold
        w = np.zeros(x.shape[1])
        for _ in range(20):
            p = 1 / (1 + np.exp(np.clip(x[taught] @ w, -50, 50)))
            slope = x[taught].T @ p - RIDGE_DENSE * w
            step = np.linalg.solve(
                (x[taught] * (p * (1 - p))[:, None]).T @ x[taught] + RIDGE_DENSE * np.eye(len(w)), slope
            )
            w += step
            if np.abs(step).max() < 1e-8:
                break
        margins[held] = x[held] @ w
    return _measured(name, margins)


def _measured(name: str, margins: np.ndarray) -> Rung:
    per_pair = 1 - np.logaddexp(0, -margins) / np.log(2)
    accuracy = float((margins > 0).mean() + (margins == 0).mean() / 2)
    return Rung(name, accuracy, float(per_pair.mean()), per_pair)
