"""Significant features as findings: merged where they are one phenomenon, with effect sizes, severity and rows.

Three effect sizes, since a preference loss sees a feature three ways: `pull` (b − c)/N is how fast it is learned,
`log_odds` ln(b/c) how far it goes, `bits` how much of the label it explains.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from curation.audit_features import Incidence, Texts
from curation.audit_kernel import CASED, CHARACTER, FAMILIES, FORMAT, PHRASE, WHITESPACE, WORD
from curation.audit_statistics import ALPHA, Tests, bits, wilson

SEVERITIES = ("info", "warn", "high", "block")
ONE_PHENOMENON = 0.7  # signed Jaccard overlap of two features' pairs
MOST = 2000  # features looked at, strongest first
ROWS = 20  # ids listed with a finding


@dataclass(frozen=True)
class Finding:
    feature: str  # the exact text as it stands in the data
    family: str
    chosen: int  # pairs in which only that side has it
    rejected: int
    coverage: float  # share of all pairs in which one side alone has it
    purity: float  # share of those in which it is the chosen side
    purity_interval: tuple[float, float]
    pull: float
    pull_interval: tuple[float, float]
    log_odds: float  # half-count corrected
    bits: float
    z: float
    z_length_adjusted: float
    p_adjusted: float
    severity: str
    explained_by_length: bool
    members: tuple[str, ...]  # other forms of the same phenomenon
    row_ids: tuple[str, ...]


def findings(found: Incidence, tests: Tests, texts: Texts) -> tuple[list[Finding], list[int]]:
    """Findings, gravest first, and the feature each stands on."""
    strong = np.flatnonzero(tests.p_adjusted <= ALPHA)
    order = strong[np.lexsort((strong, tests.p_adjusted[strong], -np.abs(tests.z[strong])))][:MOST]
    groups = [_most_exact_first(g, found, texts) for g in _merge(found, order, texts.pairs)]
    rows = signed_rows(found, np.array([g[0] for g in groups], np.int64), texts.pairs)
    made = [(_finding(g, found, tests, texts, rows[i].indices), g[0]) for i, g in enumerate(groups)]
    made.sort(key=lambda m: (-SEVERITIES.index(m[0].severity), -abs(m[0].pull), m[0].feature))
    return [m[0] for m in made], [m[1] for m in made]


def signed_rows(found: Incidence, features: np.ndarray, pairs: int) -> sparse.csr_matrix:
    """Signs (len(features), N)."""
    column = np.full(found.size, -1, np.int64)
    column[features] = np.arange(len(features))
    at = column[found.features]
    entries = at >= 0
    return sparse.csr_matrix(
        (found.signs[entries].astype(np.int64), (at[entries], found.pairs[entries])), shape=(len(features), pairs)
    )


def _merge(found: Incidence, order: np.ndarray, pairs: int) -> list[list[int]]:
    """Groups of features, each led by its strongest. A feature joins the first leader it overlaps, never a member: so
    that chains of neighbours do not run together."""
    if not len(order):
        return []
    rows = signed_rows(found, order, pairs)
    overlap = np.abs((rows @ rows.T).toarray())
    count = found.count[order]
    jaccard = overlap / np.maximum(1, count[:, None] + count[None, :] - overlap)
    groups: list[list[int]] = []
    leaders: list[int] = []
    for i in range(len(order)):
        near = [g for g, leader in enumerate(leaders) if jaccard[i, leader] >= ONE_PHENOMENON]
        if near:
            groups[max(near, key=lambda g: jaccard[i, leaders[g]])].append(int(order[i]))
        else:
            leaders.append(i)
            groups.append([int(order[i])])
    return groups


def _most_exact_first(group: list[int], found: Incidence, texts: Texts) -> list[int]:
    """The leader, or what says it better: whitespace at an end rather than the "closer" that it is too; else, of the
    forms that stand in just as many pairs, a sign or foreign letter rather than a word around it, or the longest:
    "I'm Athene" rather than "Athene"."""
    lead = group[0]
    ends = [f for f in group if found.family[f] == WHITESPACE and 2 * found.count[f] > found.count[lead]]
    same = [f for f in group if found.count[f] == found.count[lead]]
    forms = {f: surface(f, found, texts) for f in ends or same}
    longest = max(forms, key=lambda f: (found.count[f], found.family[f] == FORMAT, len(forms[f]), -f))
    strange = [f for f in forms if found.family[f] == CHARACTER and _strange(forms[f], forms[longest])]
    best = min(strange) if strange and not ends else longest
    return [best, *(f for f in group if f != best)]


def _strange(char: str, inside: str) -> bool:
    """No letter, or a letter among ASCII ones: what a reader would take for something else or not see."""
    return not char.isascii() and (not char.isalpha() or any(c.isascii() and c.isalpha() for c in inside))


def surface(feature: int, found: Incidence, texts: Texts) -> str:
    """The text of a feature's first occurrence."""
    _, side, start, end = found.example[feature].tolist()
    return texts.sides[side][start:end].tobytes().decode("utf-8", "replace")


def _finding(group: list[int], found: Incidence, tests: Tests, texts: Texts, where: np.ndarray) -> Finding:
    f, n = group[0], texts.pairs
    b, c = int(tests.chosen[f]), int(tests.rejected[f])
    one_sided = b + c
    # Rows of one prompt that agree count as fewer: n² / Σ D² is how many independent ones they are worth.
    worth = one_sided * min(1.0, one_sided / max(1, int(tests.squares[f])))
    low, high = (float(v) for v in wilson(np.array(b / one_sided * worth), np.array(worth)))
    share = one_sided / n
    explained = bool(tests.p_length[f] > ALPHA)
    effect = Finding(
        surface(f, found, texts), FAMILIES[found.family[f]], b, c, share, b / one_sided, (low, high), (b - c) / n,
        (share * (2 * low - 1), share * (2 * high - 1)), float(np.log((b + 0.5) / (c + 0.5))),
        float(bits(np.array([b]), np.array([c]), n)[0]), float(tests.z[f]), float(tests.z_length[f]),
        float(tests.p_adjusted[f]), "info", explained, tuple(dict.fromkeys(surface(m, found, texts) for m in group[1:]))[:30],
        tuple(texts.ids[i] for i in np.sort(where)[:ROWS]),
    )  # fmt: skip
    return _graded(effect, invisible(effect.feature, int(found.family[f])))


INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u00a0\u202f\u2009\r\t"


def invisible(text: str, family: int) -> bool:
    """Never a legitimate preference: whitespace at the ends, characters nobody sees, leftovers of a template."""
    hidden = family not in (WORD, PHRASE, CASED) and len(text) <= 2 and any(c in INVISIBLE for c in text)
    return family == WHITESPACE or hidden or "<|" in text or "|>" in text


def _graded(f: Finding, never_legitimate: bool) -> Finding:
    """Severity from the cautious end of the intervals; what length explains stays info."""
    low, high = f.purity_interval
    sure = max(low, 1 - high)  # the least one-sidedness the data allow
    pull = max(0.0, max(f.pull_interval[0], -f.pull_interval[1]))
    low_bits = float(bits(np.array([sure * 1e6]), np.array([(1 - sure) * 1e6]), 1_000_000)[0]) * f.coverage
    if f.explained_by_length and not never_legitimate:
        level = 0
    elif pull >= 0.20 or low_bits >= 0.10 or (f.coverage >= 0.01 and sure >= 0.95):
        level = 3
    elif pull >= 0.10 or low_bits >= 0.03 or (f.coverage >= 0.01 and sure >= 0.85):
        level = 2
    elif pull >= 0.03 or (f.coverage >= 0.002 and sure >= 0.90):
        level = 1
    else:
        level = 0
    if never_legitimate:
        level = 3 if f.coverage >= 0.002 and sure >= 0.75 else min(3, level + 1)
    return Finding(**{**f.__dict__, "severity": SEVERITIES[level]})
