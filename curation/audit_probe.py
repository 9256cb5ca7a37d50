"""How much of the preference can be told from the answers alone: a ladder of logistic probes, in bits per pair.

A probe scores the difference of two answers, σ(w·(φ(chosen) − φ(rejected))), without intercept, so that swapping the
sides swaps the answer. Folds hold out whole prompts. Bits are usable information (Ethayarajh et al. 2022, arXiv
2110.08420) against a coin's 1 bit: 0 says the probe knows nothing, below 0 that it is wrong about what it knows.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse

from curation.audit_features import Incidence, Texts
from curation.audit_kernel import CHARACTER, CLOSER, FORMAT, OPENER, WHITESPACE

FOLDS = 5
MOST_FEATURES = 20_000  # the commonest, chosen without a look at the labels
MOST_PAIRS = 200_000
RIDGE = {"dense": 1.0, "sparse": 64.0}


@dataclass(frozen=True)
class Rung:
    """What one set of features told on prompts that the probe had not seen."""

    name: str
    accuracy: float  # ties count half
    bits: float  # per pair
    per_pair: np.ndarray  # float64 (N,): bits the probe had of each pair's label

    @property
    def least_bits(self) -> float:
        """The lower end of the one-sided 95 % interval of `bits`."""
        return self.bits - 1.645 * float(self.per_pair.std()) / max(1, len(self.per_pair)) ** 0.5


def ladder(found: Incidence, texts: Texts) -> list[Rung]:
    """Rungs from length alone to all n-grams; each has the features of the ones before it."""
    numbers = np.stack([np.arcsinh(v[:, 0]) - np.arcsinh(v[:, 1]) for v in texts.numbers.values()], 1)
    length = np.log((texts.numbers["characters"][:, :1] + 1) / (texts.numbers["characters"][:, 1:] + 1))
    shape = np.isin(found.family, (CHARACTER, OPENER, CLOSER, WHITESPACE, FORMAT))
    folds = _folds(texts)
    dense = sparse.csr_matrix(_scaled(numbers))
    return [
        _rung("length", sparse.csr_matrix(_scaled(length)), folds, RIDGE["dense"]),
        _rung("surface", dense, folds, RIDGE["dense"]),
        _rung("format", sparse.hstack([dense, matrix(found, texts, shape)]).tocsr(), folds, RIDGE["sparse"]),
        _rung("ngrams", sparse.hstack([dense, matrix(found, texts)]).tocsr(), folds, RIDGE["sparse"]),
    ]


def matrix(found: Incidence, texts: Texts, keep: np.ndarray | None = None) -> sparse.csr_matrix:
    """Signs (N, features), the commonest features of those in `keep`."""
    allowed = np.flatnonzero(np.ones(found.size, bool) if keep is None else keep)
    used = allowed[np.argsort(-found.count[allowed], kind="stable")[:MOST_FEATURES]]
    column = np.full(found.size, -1, np.int64)
    column[np.sort(used)] = np.arange(len(used))
    entries = column[found.features] >= 0
    index = (found.pairs[entries], column[found.features[entries]])
    return sparse.csr_matrix((found.signs[entries].astype(float), index), shape=(texts.pairs, len(used)))


def _scaled(values: np.ndarray) -> np.ndarray:
    scale = np.sqrt((values**2).mean(0))
    return values / np.where(scale > 0, scale, 1)


def _folds(texts: Texts) -> np.ndarray:
    """A fold per pair: drawn by prompt, from what the prompt's first pair is, so that row order changes nothing."""
    first = np.searchsorted(texts.groups, np.arange(texts.prompts))
    drawn = [int(hashlib.sha256(texts.ids[i].encode()).hexdigest()[:8], 16) % FOLDS for i in first]
    return np.array(drawn, np.int64)[texts.groups]


def _rung(name: str, x: sparse.csr_matrix, folds: np.ndarray, ridge: float) -> Rung:
    margins = np.zeros(x.shape[0])
    for fold in range(FOLDS):
        held = folds == fold
        if held.any() and not held.all():
            margins[held] = x[held] @ fit(x[~held], ridge)
    per_pair = 1 - np.logaddexp(0, -margins) / np.log(2)
    accuracy = float((margins > 0).mean() + (margins == 0).mean() / 2)
    return Rung(name, accuracy, float(per_pair.mean()), per_pair)


def fit(x: sparse.csr_matrix, ridge: float) -> np.ndarray:
    """w (features,) that minimises Σ log(1 + exp(−x·w)) + ridge/2 |w|²."""
    turned = x.T.tocsr()

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = x @ w
        slope = -1 / (1 + np.exp(np.clip(margin, -500, 500)))
        return float(np.logaddexp(0, -margin).sum() + ridge / 2 * w @ w), turned @ slope + ridge * w

    found: np.ndarray = optimize.minimize(
        loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 60}
    ).x
    return found
