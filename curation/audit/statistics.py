"""Which one-sided features are no accident: a sign test by prompts, adjusted for how many were tried and for length.

Under "labels do not depend on the text, given the prompt" the sides of all pairs of a prompt may be swapped together.
With D_g the sum of a feature's signs over the pairs of prompt g, z = Σ D_g / √Σ D_g²: McNemar's test where no prompt
repeats, and honest where it does. Features come in two groups that share the error: words, of which there are very many,
and everything else (openers, whitespace, format, numbers, lexicons …), of which there are few.
"""

from dataclasses import dataclass

import numpy as np

from curation.audit import flips, tails
from curation.audit.corpus import Corpus
from curation.audit.incidence import Incidence

ALPHA = 0.01  # chance of any finding at all where there is nothing to find
GROUPS = 2
FLIPS = 2048
SELF_NORMALISED = 3.178  # P(Σ ε_g D_g ≥ z √ΣD²) ≤ 3.178 P(N ≥ z): Bentkus & Dzindzalieta 2015, the best constant
LEAST_Z = 2.5  # below this nothing is significant among many
LEAST = 8  # one-sided pairs of the sample below which a feature is not looked at
SCREEN = 2.5  # |z| in the sample from which on a feature is counted in all pairs
GRAVE_PULL, GRAVE_SHARE, GRAVE_NET = 0.02, 0.0004, 0.7  # what is counted in all pairs as well
LENGTH_BINS = np.array([-1.5, -1.0, -0.7, -0.45, -0.25, -0.1, 0.1, 0.25, 0.45, 0.7, 1.0, 1.5])  # ln(chosen / rejected)
RARITIES = 10  # classes of features by how often they are one-sided
LEAST_OF_BIN = 4  # pairs of a bin in which a feature is one-sided, for it to have a say
MOST_SAY = 50  # pairs
LEAST_FEATURES = 30  # that say what is usual


@dataclass(frozen=True)
class Threshold:
    """What a feature of one group must reach. `tried`: Tarone's divisor, the features that could have been significant."""

    tried: int
    z: float  # of max-T; inf where it was not run
    luck: np.ndarray  # float64 (flips,): the largest |z| under each flip, empty where it was not run

    def need(self, n: int) -> int:
        """How many of n one-sided pairs of different prompts must agree."""
        exact = tails.binomial_inverse(ALPHA / GROUPS / self.tried / 2, n)
        if not np.isfinite(self.z):
            return exact
        return min(exact, int(np.ceil((n + self.z * n**0.5) / 2 - 1e-9)))


@dataclass(frozen=True)
class Tests:
    """One entry per feature."""

    chosen: np.ndarray  # int64: pairs in which only the chosen side has it
    rejected: np.ndarray
    squares: np.ndarray  # int64: Σ over prompts of (sum of signs)²
    group: np.ndarray  # uint8: 0 words, 1 everything else
    z: np.ndarray
    p: np.ndarray  # two-sided, of z: exact or a bound
    p_adjusted: np.ndarray  # of any such z in the whole set by luck: max-T or Tarone-Bonferroni
    q: np.ndarray  # Benjamini-Hochberg, of the features that could have been significant
    thresholds: tuple[Threshold, Threshold]

    @property
    def count(self) -> np.ndarray:
        found: np.ndarray = self.chosen + self.rejected
        return found

    @property
    def significant(self) -> np.ndarray:
        found: np.ndarray = self.p_adjusted <= ALPHA
        return found

    @property
    def tried(self) -> int:
        return sum(t.tried for t in self.thresholds)


def test(chosen: np.ndarray, rejected: np.ndarray, squares: np.ndarray, group: np.ndarray, screened: int = 0) -> Tests:
    """Sign tests of all features, adjusted by Tarone-Bonferroni within each group. `screened`: how many more were tried
    in either group and ruled out before."""
    count, net = chosen + rejected, chosen - rejected
    z = net / np.sqrt(np.maximum(squares, 1))
    alone = squares == count  # never twice in one prompt with the same sign: the exact test
    p = np.where(alone, _binomial(net, count, z), _bound(z))
    could = np.sqrt(np.minimum(count, squares))  # z if all prompts agreed, at most
    reach = np.where(alone, np.exp2(1.0 - np.minimum(count, 1000)), _bound(could))
    adjusted, q, thresholds = np.ones(len(p)), np.ones(len(p)), []
    for g in range(GROUPS):
        mine = np.flatnonzero(group == g)
        tried = tarone(reach[mine], ALPHA / GROUPS) + screened
        adjusted[mine] = np.minimum(1.0, p[mine] * tried * GROUPS)
        testable = mine[reach[mine] <= ALPHA / GROUPS / tried]
        q[testable] = benjamini_hochberg(p[testable])
        thresholds.append(Threshold(tried, np.inf, np.zeros(0)))
    return Tests(chosen, rejected, squares, group, z, p, adjusted, q, (thresholds[0], thresholds[1]))


def with_flips(tests: Tests, found: Incidence, corpus: Corpus, seed: int = 0) -> Tests:
    """The same, sharpened by max-T (Westfall & Young) over flips of whole prompts, where `found` has every feature in
    all pairs. A z beyond every flip keeps its Tarone-Bonferroni p."""
    if found.pairs_read < corpus.pairs:
        return tests
    rng = np.random.default_rng(seed)
    lots = rng.integers(0, 2**64, (corpus.prompts, FLIPS // 64), np.uint64, endpoint=False)
    best = np.full((GROUPS, FLIPS), LEAST_Z)
    flips.max_z(found.start, found.pairs, found.signs, corpus.groups, lots, tests.group.astype(np.int64), LEAST_Z, best)
    adjusted, thresholds = tests.p_adjusted.copy(), []
    for g in range(GROUPS):
        luck = np.sort(best[g])
        mine = np.flatnonzero((tests.group == g) & (np.abs(tests.z) > LEAST_Z))
        larger = FLIPS - np.searchsorted(luck, np.abs(tests.z[mine]) - 1e-9, "left")
        by_luck = np.minimum(1.0, GROUPS * (1 + larger) / (1 + FLIPS))
        adjusted[mine] = np.minimum(adjusted[mine], by_luck)
        may = int(ALPHA / GROUPS * (1 + FLIPS)) - 1  # flips that may reach a significant z
        beyond = float(np.nextafter(luck[FLIPS - 1 - may], np.inf)) if may < FLIPS else LEAST_Z
        thresholds.append(Threshold(tests.thresholds[g].tried, beyond, luck))
    return Tests(
        tests.chosen, tests.rejected, tests.squares, tests.group, tests.z, tests.p, adjusted, tests.q,
        (thresholds[0], thresholds[1]),
    )  # fmt: skip


def _binomial(net: np.ndarray, count: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Two-sided sign test: P(|2B − n| ≥ |net|), B ~ Binomial(n, ½). Exact where it matters (|z| > 2), else a normal
    tail that is nowhere near significance."""
    found: np.ndarray = 2 * tails.normal(np.abs(z))
    far = np.flatnonzero(np.abs(z) > 2)
    more = (count[far] + np.abs(net[far])) // 2
    found[far] = np.minimum(1.0, 2 * tails.binomial(more, count[far], 0.5))
    return found


def _bound(z: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.minimum(1.0, 2 * SELF_NORMALISED * tails.normal(np.abs(z)))
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


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """q of each p: the false discovery rate of the smallest list that holds it (Benjamini & Hochberg 1995)."""
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return q


@dataclass(frozen=True)
class ByLength:
    """q: how often a feature as rare is usually on the chosen side in pairs of that ratio of lengths."""

    bins: np.ndarray  # int64 (N,): bin of each pair's ratio of lengths
    q: np.ndarray  # float64 (RARITIES, bins)

    @staticmethod
    def of(found: Incidence, lengths: np.ndarray) -> "ByLength":
        """Learned from all features together, each with the same say: a feature with its kin must not explain itself.
        `lengths` (N, 2): chosen, rejected."""
        bins = np.searchsorted(LENGTH_BINS, np.log((lengths[:, 0] + 1) / (lengths[:, 1] + 1)))
        counts = np.zeros((found.size, len(LENGTH_BINS) + 1, 2), np.int32)
        flips.count_by_bin(found.start, found.pairs, found.signs, bins, counts)
        q = np.full((RARITIES, len(LENGTH_BINS) + 1), 0.5)
        rarity, n = _rarity(found.count), counts.sum(2)
        for b in range(q.shape[1]):
            enough = n[:, b] >= LEAST_OF_BIN
            if enough.any():
                share, weight = counts[enough, b, 0] / n[enough, b], np.minimum(n[enough, b], MOST_SAY)
                q[:, b] = [_usual(share, weight, rarity[enough], r) for r in range(RARITIES)]
        return ByLength(bins, q)

    def z(self, found: Incidence, corpus: Corpus) -> np.ndarray:
        """z (features,) of Σ (y − q): y, the chosen side has it. The variance is the model's or the prompts', whichever
        is larger: where q nears 1 the prompts' own would call a run of ones a marvel."""
        count = found.count
        q = self.q[np.repeat(_rarity(count), count), self.bins[found.pairs]]
        # Whole numbers, so that sums do not depend on their order.
        residual = np.round(((found.signs > 0) - q) * 2**20).astype(np.int64)
        expected = np.round(q * (1 - q) * 2**20).astype(np.int64)
        total, squares = np.zeros(found.size, np.int64), np.zeros(found.size)
        flips.sums_by_prompt(found.start, found.pairs, residual, corpus.groups, total, squares)
        model = np.add.reduceat(np.append(expected, 0), np.minimum(found.start[:-1], len(expected))) * (count > 0)
        variance = np.maximum(squares / 2.0**40, model / 2.0**20)
        z: np.ndarray = total / 2.0**20 / np.sqrt(np.maximum(variance, 1e-12))
        return z


def _rarity(count: np.ndarray) -> np.ndarray:
    """The class of a feature by how often it is one-sided, a factor of 4 each."""
    found: np.ndarray = np.minimum(RARITIES - 1, np.log2(np.maximum(count, 1)).astype(np.int64) // 2)
    return found


def _usual(share: np.ndarray, weight: np.ndarray, rarity: np.ndarray, r: int) -> float:
    """The weighted mean share of features about as rare, the outermost tenths left out. Classes beside are taken in
    until there are features enough."""
    for wide in range(RARITIES):
        near = np.abs(rarity - r) <= wide
        if near.sum() >= LEAST_FEATURES:
            break
    order = np.argsort(share[near], kind="stable")
    s, w = share[near][order], weight[near][order].astype(float)
    upto = np.cumsum(w)
    inside = np.clip(np.minimum(upto, 0.9 * upto[-1]) - np.maximum(upto - w, 0.1 * upto[-1]), 0, None)
    return float(np.clip((s * inside).sum() / inside.sum(), 0.005, 0.995))


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


def may_be_grave(count: np.ndarray, net: np.ndarray, pairs: int) -> np.ndarray:
    """Features of a sample of `pairs` pairs that may be more than info in the whole set. `net`: |chosen − rejected|."""
    found: np.ndarray = (net >= GRAVE_PULL * pairs) | ((count >= GRAVE_SHARE * pairs) & (net >= GRAVE_NET * count))
    return found


def detection_limit(threshold: Threshold, pairs: int, sample: int, power: float = 0.9) -> dict[str, float | None]:
    """For a purity, the smallest coverage found with `power` in this many pairs of different prompts, of which `sample`
    are looked at whole; None: none is."""
    return {str(purity): _smallest(purity, threshold, pairs, sample, power) for purity in (1.0, 0.9, 0.75, 0.6)}


def chance_to_find(threshold: Threshold, n: int, purity: float, share: float = 1.0, sample: int = 0) -> float:
    """The power of the test for a feature that is one-sided in n pairs of different prompts. `share`: the sample's part
    of the set, `sample`: its pairs; the feature must be noticed there first."""
    found = float(tails.binomial(threshold.need(n), n, purity))
    return found if share >= 1 else min(found, _noticed(n * share, purity, sample))


def _noticed(expected: float, purity: float, sample: int) -> float:
    """Chance that a feature expected in so many pairs of the sample passes its screen."""
    spread = 5 * max(1.0, expected) ** 0.5
    counts = np.unique(np.linspace(max(LEAST, expected - spread), expected + spread + LEAST, 60).astype(np.int64))
    weights = tails.poisson_weights(counts, expected)
    total = tails.poisson(LEAST, expected)
    need = np.ceil((counts + SCREEN * np.sqrt(counts)) / 2)
    pure = np.where(counts >= GRAVE_SHARE * sample, np.ceil((1 + GRAVE_NET) / 2 * counts), np.inf)
    large = np.ceil((counts + GRAVE_PULL * sample) / 2)
    passes = tails.binomial(np.minimum(np.minimum(need, pure), large), counts, purity)
    return float(total * (weights * passes).sum() / max(weights.sum(), 1e-300))


def _smallest(purity: float, threshold: Threshold, pairs: int, sample: int, power: float) -> float | None:
    low, high = 1, pairs + 1
    while low < high:
        n = (low + high) // 2
        if chance_to_find(threshold, n, purity, sample / pairs, sample) >= power:
            high = n
        else:
            low = n + 1
    return low / pairs if low <= pairs else None
