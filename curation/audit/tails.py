"""Tails of the distributions the audit needs, from scipy.special: scipy.stats alone takes most of a second to import."""

from typing import Any

import numpy as np
from scipy import special


def normal(z: Any) -> Any:
    """P(Z > z)."""
    return special.ndtr(-np.asarray(z, float))


def normal_inverse(p: float) -> float:
    """The z with P(Z > z) = p."""
    return float(-special.ndtri(p))


def binomial(k: Any, n: Any, p: Any) -> Any:
    """P(B ≥ k), B ~ Binomial(n, p)."""
    k, n = np.asarray(k, float), np.asarray(n).astype(np.int64)
    inside = special.bdtrc(np.clip(k - 1, 0, n), n, p)
    return np.where(k <= 0, 1.0, np.where(k > n, 0.0, inside))


def binomial_inverse(p: float, n: int) -> int:
    """The smallest k with P(B ≥ k) ≤ p, B ~ Binomial(n, ½); n + 1 where there is none."""
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        if float(binomial(middle, n, 0.5)) <= p:
            high = middle
        else:
            low = middle + 1
    return low


def binomial_test(k: int, n: int, p: float) -> float:
    """Two-sided: twice the smaller tail."""
    return min(1.0, 2 * min(float(special.bdtr(k, n, p)), float(binomial(k, n, p))))


def chi_square(x: float, free: int) -> float:
    """P(X > x)."""
    return float(special.chdtrc(free, x))


def poisson(k: float, mean: float) -> float:
    """P(N ≥ k)."""
    return float(special.pdtrc(k - 1, mean)) if k > 0 else 1.0


def poisson_weights(counts: np.ndarray, mean: float) -> np.ndarray:
    """P(N = k)."""
    found: np.ndarray = np.exp(counts * np.log(max(mean, 1e-300)) - mean - special.gammaln(counts + 1))
    return found
