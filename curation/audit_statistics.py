"""Which one-sided features are no accident: a sign test by prompts, adjusted for length and for how many were tried.

Under "labels do not depend on the text, given the prompt" the sides of all pairs of a prompt may be swapped together.
With D_g the sum of a feature's signs over the pairs of prompt g, z = Σ D_g / √Σ D_g²: McNemar's test where no prompt
repeats, and honest where it does.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from curation import audit_kernel
from curation.audit_features import Incidence, Texts

ALPHA = 0.05  # chance of any finding at all where there is nothing to find
SELF_NORMALISED = 3.178  # P(Σ ε_g D_g ≥ z √ΣD²) ≤ 3.178 P(N ≥ z): Bentkus & Dzindzalieta 2015, the best constant
LENGTH_BINS = np.array([-1.5, -1.0, -0.7, -0.45, -0.25, -0.1, 0.1, 0.25, 0.45, 0.7, 1.0, 1.5])  # ln(chosen / rejected)
RARITIES = 10  # classes of features by how often they are one-sided, a factor of 4 each


@dataclass(frozen=True)
class Tests:
    """One entry per feature."""

    chosen: np.ndarray  # int64: pairs in which only the chosen side has it
    rejected: np.ndarray
    squares: np.ndarray  # int64: Σ over prompts of (sum of signs)²
    z: np.ndarray
    z_length: np.ndarray  # the same, given which side is longer and by how much
    p: np.ndarray  # two-sided, of z: exact or a bound
    p_adjusted: np.ndarray  # Tarone-Bonferroni over everything tried; ≤ 1
    tried: int  # features that could have reached significance: the divisor

    @property
    def count(self) -> np.ndarray:
        return self.chosen + self.rejected

    @property
    def p_length(self) -> np.ndarray:
        found: np.ndarray = np.minimum(1.0, 2 * stats.norm.sf(np.abs(self.z_length)) * self.tried)
        return found


def by_prompt(found: Incidence, values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Σ values, Σ over prompts |sum|, Σ over prompts sum²) of each feature; `values` (E,) are whole numbers."""
    sums, absolute, squares = (np.zeros(found.size, values.dtype) for _ in range(3))
    audit_kernel.add_by_prompt(found.pairs, found.features, values, groups, sums, absolute, squares)
    return sums, absolute, squares


def test(found: Incidence, texts: Texts, alpha: float = ALPHA) -> Tests:
    """Test every feature of `found`."""
    net, absolute, squares = by_prompt(found, found.signs.astype(np.int64), texts.groups)
    chosen, count = (found.count + net) // 2, found.count
    z = net / np.sqrt(np.maximum(squares, 1))
    alone = squares == count  # never twice in one prompt with the same sign: the exact test
    p = np.where(alone, _binomial(net, count), _bound(z))
    reach = np.where(alone, _binomial(count, count), _bound(absolute / np.sqrt(np.maximum(squares, 1))))
    tried = tarone(reach, alpha)
    return Tests(
        chosen, count - chosen, squares, z, _z_length(found, texts), p, np.minimum(1.0, p * tried), tried,
    )  # fmt: skip


def _binomial(net: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Two-sided sign test: P(|2B − n| ≥ |net|), B ~ Binomial(n, ½)."""
    more = (count + np.abs(net)) // 2
    found: np.ndarray = np.minimum(1.0, 2 * stats.binom.sf(more - 1, count, 0.5))
    return found


def _bound(z: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.minimum(1.0, 2 * SELF_NORMALISED * stats.norm.sf(np.abs(z)))
    return found


def tarone(reach: np.ndarray, alpha: float) -> int:
    """The smallest K for which no more than K features can reach p ≤ alpha / K (Tarone 1990). Those that cannot reach
    significance whatever their signs need no correction."""
    ordered = np.sort(reach)
    low, high = 1, max(1, len(reach))
    while low < high:
        middle = (low + high) // 2
        if np.searchsorted(ordered, alpha / middle, "right") <= middle:
            high = middle
        else:
            low = middle + 1
    return low


def _z_length(found: Incidence, texts: Texts) -> np.ndarray:
    """z of Σ (y − q): y, the chosen side has it; q, how often any feature as rare is on the chosen side at that ratio
    of lengths. The variance is the model's or the prompts', whichever is larger: where q nears 1 the prompts' own
    would call a run of ones a marvel.
    """
    lengths = texts.numbers["characters"]
    bins = np.searchsorted(LENGTH_BINS, np.log((lengths[:, 0] + 1) / (lengths[:, 1] + 1)))
    rarity = np.minimum(RARITIES - 1, np.log2(np.maximum(found.count, 1)).astype(np.int64) // 2)
    cell = bins[found.pairs] * RARITIES + rarity[found.features]
    cells = (len(LENGTH_BINS) + 1) * RARITIES
    all_of = np.bincount(cell, minlength=cells)
    q_of = (np.bincount(cell, found.signs > 0, minlength=cells) + 1) / (all_of + 2)
    q = q_of[cell]
    # Whole numbers, so that sums do not depend on their order.
    residual = np.round(((found.signs > 0) - q) * 2**20).astype(np.int64)
    expected = np.round(q * (1 - q) * 2**20).astype(np.int64)
    total, _, squares = by_prompt(found, residual, texts.groups)
    model = np.bincount(found.features, expected, minlength=found.size)  # exact: whole numbers below 2^53
    variance = np.maximum(squares / 2.0**40, model / 2.0**20)
    z: np.ndarray = total / 2.0**20 / np.sqrt(np.maximum(variance, 1e-12))
    return z


def bits(chosen: np.ndarray, rejected: np.ndarray, pairs: int) -> np.ndarray:
    """Bits of the label a feature explains, per pair of the set: n/N (1 − H₂(b/n))."""
    n = chosen + rejected
    share = np.clip(chosen / np.maximum(n, 1), 1e-12, 1 - 1e-12)
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    found: np.ndarray = n / max(1, pairs) * (1 - entropy)
    return found


def wilson(hits: np.ndarray, n: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share; n may be an effective number."""
    n = np.maximum(n, 1e-9)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)


def detection_limit(tried: int, pairs: int, alpha: float = ALPHA, power: float = 0.9) -> dict[str, float | None]:
    """For a purity, the smallest coverage found with `power` in this many pairs of different prompts; None: none is."""
    found: dict[str, float | None] = {}
    for purity in (1.0, 0.9, 0.75, 0.6):
        found[str(purity)] = _smallest(purity, tried, pairs, alpha, power)
    return found


def _smallest(purity: float, tried: int, pairs: int, alpha: float, power: float) -> float | None:
    low, high = 1, pairs + 1
    while low < high:
        n = (low + high) // 2
        need = stats.binom.isf(alpha / tried / 2, n, 0.5) + 1
        if stats.binom.sf(need - 1, n, purity) >= power:
            high = n
        else:
            low = n + 1
    return low / pairs if low <= pairs else None
