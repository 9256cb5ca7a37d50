"""Significant features as findings: merged where they are one phenomenon, with effect sizes, severity and rows.

Three effect sizes, since a preference loss sees a feature three ways: `pull` (b − c)/N is how fast it is learned,
`log_odds` ln(b/c) how far it goes, `bits` how much of the label it explains.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from curation.audit.evidence import Evidence
from curation.audit.incidence import FAMILIES, Incidence
from curation.audit.statistics import Tests, bits, wilson
from curation.audit.surface import Surfaces

SEVERITIES = ("info", "warn", "high", "block")
ONE_PHENOMENON = 0.7  # signed Jaccard overlap of two features' pairs
NESTED = 0.9  # of a feature's pairs, with the same sign, that a leader has
MOST = 3000  # features looked at, strongest first
ROWS = 20  # ids listed with a finding
TOKENS_OF_TEXT = ("first token ", "last token ", "tokens that are parts of a character")
TEXT = ("word", "phrase", "cased", "character", "opener", "closer", "whitespace", "format")


@dataclass(frozen=True)
class Finding:
    """One phenomenon. Counts and shares are of pairs in which one side alone has it."""

    feature: str  # the exact text as it stands in the data, or the name of what is more or there
    family: str
    chosen: int
    rejected: int
    coverage: float  # share of all pairs
    purity: float  # share of those in which it is the chosen side
    purity_interval: tuple[float, float]
    pull: float
    pull_interval: tuple[float, float]
    log_odds: float  # half-count corrected
    log_odds_interval: tuple[float, float]
    bits: float
    bits_interval: tuple[float, float]
    z: float
    z_length_adjusted: float
    p: float
    p_adjusted: float
    q: float
    severity: str
    score: float  # 0 to 100, to sort by
    explained_by_length: bool
    edit: str  # what takes it out of a text: "strip", "delete", "normalise", "" where nothing simple does
    members: tuple[str, ...]  # other forms of the same phenomenon
    row_ids: tuple[str, ...] = ()
    counter_row_ids: tuple[str, ...] = ()  # pairs that speak against it
    heterogeneity: float | None = None  # I² over kinds of prompts
    verdict: str = "undecided"  # artifact, style, content, undecided
    evidence: tuple[Evidence, ...] = ()
    key: str = ""  # hash of the feature as the kernel reads it, 16 hex digits; "" where family and name say which it is
    examples: tuple[int, ...] = ()  # those rows by their number in the corpus; not in audit.json
    counter_examples: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """An entry of audit.json."""
        found = {k: v for k, v in asdict(self).items() if k not in ("examples", "counter_examples")}
        return {**found, "evidence": [e._asdict() for e in self.evidence]}


@dataclass(frozen=True)
class Group:
    """Features that are one phenomenon, what says it best first."""

    features: tuple[int, ...]

    @property
    def lead(self) -> int:
        return self.features[0]


def groups(found: Incidence, tests: Tests, family: np.ndarray, surfaces: Surfaces) -> list[Group]:
    """The significant features of `found`, those of one phenomenon together. `family` (F,) indexes FAMILIES."""
    strong = np.flatnonzero(tests.significant)
    order = strong[np.lexsort((strong, tests.p_adjusted[strong], -np.abs(tests.z[strong])))][:MOST]
    kinds = np.array([_kind(FAMILIES[family[f]], surfaces.of(f)) for f in order.tolist()], np.int64)
    texts = np.array([FAMILIES[family[f]] in TEXT for f in order.tolist()], bool)
    merged = [g for kind in range(2) for g in _merge(found, order[kinds == kind], texts[kinds == kind])]
    return [Group(tuple(_most_exact_first(g, found, family, surfaces))) for g in merged]


def _kind(family: str, name: str) -> int:
    """What may be one phenomenon: texts, word lists, measures and tokens that are a text; what is known of a pair from
    outside, and how it is cut into tokens."""
    return 1 if family in ("column", "trigger") or (family == "token" and not name.startswith(TOKENS_OF_TEXT)) else 0


def _merge(found: Incidence, order: np.ndarray, may_hold: np.ndarray) -> list[list[int]]:
    """Groups of features, each led by its strongest. A feature joins the leader it overlaps most, never a member: so
    that chains of neighbours do not run together. It also joins a leader in whose pairs it lies altogether, if it is no
    purer there: "Sure, here is a" says nothing that "Sure" does not. `may_hold` (len(order),): which leaders take such in.
    """
    if not len(order):
        return []
    rows = signed_rows(found, order)
    both = (rows @ rows.T).tocoo()
    count, net = found.count[order], np.asarray(rows.sum(1)).ravel()
    purity = np.abs(net) / np.maximum(1, count)
    shared = np.abs(both.data)
    jaccard = shared / np.maximum(1, count[both.row] + count[both.col] - shared)
    inside = (shared >= NESTED * count[both.row]) & (purity[both.row] <= purity[both.col] + 0.04) & may_hold[both.col]
    earlier = both.col < both.row
    near: list[list[tuple[float, int, bool]]] = [[] for _ in order]
    for close, nested in (((jaccard >= ONE_PHENOMENON) & earlier, False), (inside & earlier, True)):
        listed = zip(both.row[close].tolist(), both.col[close].tolist(), jaccard[close].tolist(), strict=True)
        for i, j, value in listed:
            near[i].append((value, -j, nested))
    group_of: dict[int, int] = {}  # of every feature so far
    leaders: set[int] = set()
    made: list[list[int]] = []
    for i in range(len(order)):
        joins = [(value, j) for value, j, nested in near[i] if nested or -j in leaders]
        if joins:
            group_of[i] = group_of[-max(joins)[1]]
            made[group_of[i]].append(int(order[i]))
        else:
            leaders.add(i)
            group_of[i] = len(made)
            made.append([int(order[i])])
    return made


def signed_rows(found: Incidence, features: np.ndarray) -> sparse.csr_matrix:
    """Signs (len(features), pairs read)."""
    part = found.part(features)
    shape = (len(features), found.pairs_read)
    return sparse.csr_matrix((part.signs.astype(np.int32), part.pairs, part.start), shape=shape)


def _most_exact_first(group: list[int], found: Incidence, family: np.ndarray, surfaces: Surfaces) -> list[int]:
    """The leader, or what says it better: whitespace at an end rather than the "closer" that it is too; a text rather
    than the name of a word list; else, of the forms that stand in just as many pairs, a sign or foreign letter rather
    than a word around it, or the longest: "I'm Athene" rather than "Athene"."""
    lead = group[0]
    texts = [f for f in group if FAMILIES[family[f]] in TEXT]
    if FAMILIES[family[lead]] not in TEXT:
        near = [f for f in texts if found.count[f] >= 0.9 * found.count[lead]]
        if not near:
            return group
        lead = near[0]
    ends = [f for f in texts if FAMILIES[family[f]] == "whitespace" and 2 * found.count[f] > found.count[lead]]
    same = [f for f in texts if found.count[f] == found.count[lead]]
    forms = {f: surfaces.of(f) for f in ends or same or [lead]}
    rank = {"format": 2, "opener": 1, "closer": 1}  # of those in just as many pairs, what says where it stands
    longest = max(forms, key=lambda f: (found.count[f], rank.get(FAMILIES[family[f]], 0), len(forms[f]), -f))
    strange = [f for f in forms if FAMILIES[family[f]] == "character" and _strange(forms[f], forms[longest])]
    best = min(strange) if strange and not ends else longest
    return [best, *(f for f in group if f != best)]


def _strange(char: str, inside: str) -> bool:
    """No letter, or a letter among ASCII ones: what a reader would take for something else or not see."""
    return not char.isascii() and (not char.isalpha() or any(c.isascii() and c.isalpha() for c in inside))


class Counted(NamedTuple):
    """A feature's counts and tests, from wherever they come."""

    name: str
    family: str
    chosen: int
    rejected: int
    squares: int  # Σ over prompts of (sum of signs)²
    z: float
    z_length: float
    p: float
    p_adjusted: float
    q: float
    members: tuple[str, ...] = ()


def finding(
    group: Group, tests: Tests, family: np.ndarray, z_length: np.ndarray, surfaces: Surfaces, pairs: int
) -> Finding:
    """The group's leader sized and graded; rows and evidence come later."""
    f = group.lead
    members = tuple(dict.fromkeys(surfaces.of(m) for m in group.features[1:]))[:30]
    return sized(
        Counted(
            surfaces.of(f), FAMILIES[family[f]], int(tests.chosen[f]), int(tests.rejected[f]), int(tests.squares[f]),
            float(tests.z[f]), float(z_length[f]), float(tests.p[f]), float(tests.p_adjusted[f]), float(tests.q[f]), members,
        ),
        pairs,
    )  # fmt: skip


def sized(c: Counted, pairs: int) -> Finding:
    """Effect sizes with their intervals, and the severity."""
    one_sided = c.chosen + c.rejected
    # Rows of one prompt that agree count as fewer: n² / Σ D² is how many independent ones they are worth.
    worth = one_sided * min(1.0, one_sided / max(1, c.squares))
    low, high = (float(v) for v in wilson(np.array(c.chosen / one_sided * worth), np.array(worth)))
    share = one_sided / pairs
    by_purity = [float(bits(np.array([1e6 * p]), np.array([1e6 * (1 - p)]), 1_000_000)[0]) * share for p in (low, high)]
    least_bits = 0.0 if low <= 0.5 <= high else min(by_purity)
    made = Finding(
        feature=c.name, family=c.family, chosen=c.chosen, rejected=c.rejected, coverage=share, purity=c.chosen / one_sided,
        purity_interval=(low, high), pull=(c.chosen - c.rejected) / pairs,
        pull_interval=(share * (2 * low - 1), share * (2 * high - 1)),
        log_odds=float(np.log((c.chosen + 0.5) / (c.rejected + 0.5))),
        log_odds_interval=(_odds(low, one_sided), _odds(high, one_sided)),
        bits=float(bits(np.array([c.chosen]), np.array([c.rejected]), pairs)[0]), bits_interval=(least_bits, max(by_purity)),
        z=c.z, z_length_adjusted=c.z_length, p=c.p, p_adjusted=c.p_adjusted, q=c.q, severity="info",
        score=100 * min(1.0, least_bits / 0.10) ** 0.5, explained_by_length=_by_length(c.z, c.z_length, c.name, c.family),
        edit=edit_of(c.name, c.family), members=c.members,
    )  # fmt: skip
    return replace(made, severity=SEVERITIES[_level(made, max(low, 1 - high), never_legitimate(c.name, c.family))])


def _odds(share: float, n: int) -> float:
    return float(np.log((share * n + 0.5) / ((1 - share) * n + 0.5)))


MORE_TOKENS = "more tokens"
LENGTHS = (MORE_TOKENS, "more characters", "more words", "more distinct words", "more sentences", "more lines")


def _by_length(z: float, z_length: float, name: str, family: str) -> bool:
    """Whether at equal length little is left: what one feature alone would reach by luck in one of a hundred, or less
    than two thirds of z and no more than the best of a million features would reach by luck. A measure of length is not
    its own excuse."""
    if family == "number" and name in LENGTHS:
        return False
    return z * z_length < 0 or abs(z_length) < 2.58 or abs(z_length) < min(5.0, abs(z) * 2 / 3)


INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u00a0\u202f\u2009\r\t"


def never_legitimate(text: str, family: str) -> bool:
    """Never a preference: whitespace at the ends, characters nobody sees, leftovers of a template, how a text was cut."""
    hidden = family not in ("word", "phrase", "cased") and len(text) <= 2 and any(c in INVISIBLE for c in text)
    cut = family == "token" and not text.startswith(TOKENS_OF_TEXT)
    return family == "whitespace" or cut or hidden or "<|" in text or "|>" in text


def edit_of(text: str, family: str) -> str:
    """The name of the edit that takes a feature out of a text."""
    if family == "whitespace":
        return "strip"
    if family == "character" and (not text.isascii() or text in INVISIBLE):
        return "normalise" if not text.isalpha() else "delete"
    return "delete" if family in TEXT else ""


def _pure(f: Finding) -> bool:
    """One-sided in nine of ten pairs: too few of them for a narrow interval, yet nothing speaks against it."""
    return max(f.purity, 1 - f.purity) >= 0.90


def _level(f: Finding, sure: float, never: bool) -> int:
    """Severity from the cautious end of the intervals; what length explains stays info. Numbers differ in nearly every
    pair, so that their pull is asked to be twice as large."""
    pull = max(0.0, max(f.pull_interval[0], -f.pull_interval[1])) / (2 if f.family == "number" else 1)
    low_bits = f.bits_interval[0] / (2 if f.family == "number" else 1)
    if f.explained_by_length and not never:
        return 0
    if pull >= 0.20 or low_bits >= 0.10 or (f.coverage >= 0.01 and sure >= 0.95):
        level = 3
    elif pull >= 0.10 or low_bits >= 0.03 or (f.coverage >= 0.01 and sure >= 0.85):
        level = 2
    elif pull >= (0.05 if f.family == "number" else 0.03) or (f.coverage >= 0.002 and (sure >= 0.90 or _pure(f))):
        level = 1
    else:
        level = 0
    if f.family == "trigger":  # topics differ too: what is read in the prompt never blocks
        level = min(1, level)
    if f.family == "column":  # no text shows it: what it explains, findings in the text are graded for
        level = max(0, level - 1)
    if never:
        level = 3 if f.coverage >= 0.002 and sure >= 0.75 else min(3, level + 1)
    return level


def gravest_first(f: Finding) -> tuple[int, float, str]:
    """The key findings are sorted by."""
    return -SEVERITIES.index(f.severity), -abs(f.pull), f.feature
