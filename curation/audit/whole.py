"""The audit from texts to verdict."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from curation.audit import kernel
from curation.audit.corpus import Corpus
from curation.audit.evidence import beside, collected, judged, model_pairs, swapped_purity, z_within_models
from curation.audit.features import FAMILIES, Counts, Incidence, Signed, collect, counts_of, survey, tally, with_signed
from curation.audit.findings import TEXT, Finding, Group, finding, groups, in_order, never_legitimate, signed_rows
from curation.audit.gate import Gates, Rule, judge
from curation.audit.overview import Curve, Match, length_curve, matches, means
from curation.audit.probe import Residual, Rung, ladder, probe, residual_curve
from curation.audit.reading import corpus_of, pair_ids_of
from curation.audit.signed import measures, signed_features
from curation.audit.statistics import ALPHA, GROUPS, Tests, detection_limit, test, with_flips, z_by_length
from curation.audit.strata import Strata, heterogeneity, strata
from curation.audit.surface import WITNESSES, Surfaces, grown

ENTRIES = 40_000_000  # of the incidence
SAMPLE = 100_000  # pairs of it, where not all features fit
RULES = 5
ROWS = 20  # ids listed with a finding
LOOKED_AT = 400  # findings, gravest first, that get evidence and grow to their whole text
WORDS = [kernel.FAMILIES.index(f) for f in ("word", "phrase", "cased")]


@dataclass(frozen=True)
class Audit:
    """What was found. `as_dict` is audit.json."""

    verdict: str  # pass, warn, block
    reasons: tuple[str, ...]
    pairs: int
    prompts: int
    tried: int
    detection_limit: dict[str, float | None]  # of a word; purity: smallest coverage found with 90 % power
    detection_limit_shape: dict[str, float | None]  # of an opener, a closer, whitespace, a number …
    probe: tuple[Rung, ...]
    residual: tuple[Residual, ...]
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]
    numbers: dict[str, dict[str, float]]
    lengths: tuple[Curve, ...]
    models: tuple[Match, ...]
    strata: str
    not_tested: tuple[str, ...]
    rows: pa.Table  # of every pair that a finding from warn on touches
    content: str = ""  # hash of all answers: which pairs these were

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict, "reasons": list(self.reasons), "pairs": self.pairs, "prompts": self.prompts,
            "content": self.content, "tried": self.tried, "error_rate": ALPHA, "detection_limit": self.detection_limit,
            "detection_limit_shape": self.detection_limit_shape,
            "probe": {r.name: {"accuracy": r.accuracy, "bits": r.bits, "pairs": len(r.per_pair)} for r in self.probe},
            "rules": [dict(zip(("feature", "side", "decided", "right"), r, strict=True)) for r in self.rules],
            "residual": [dataclasses.asdict(r) for r in self.residual], "numbers": self.numbers,
            "lengths": [c._asdict() for c in self.lengths], "models": [m._asdict() for m in self.models],
            "strata": self.strata, "not_tested": list(self.not_tested),
            "findings": [{**dataclasses.asdict(f), "evidence": [e._asdict() for e in f.evidence]} for f in self.findings],
        }  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Every feature of a corpus with its tests, and where the ones at hand stand."""

    keys: np.ndarray  # uint64: of those read from texts, which come first
    signed: Sequence[Signed]
    family: np.ndarray  # int64: index into FAMILIES
    tests: Tests
    found: Incidence
    complete: bool  # `found` has all pairs

    @property
    def of_texts(self) -> int:
        return len(self.keys)


def audit(
    rows: pa.Table | Corpus, gates: Gates | None = None, gold: pa.Table | Corpus | None = None,
    more: Sequence[Signed] = (), embeddings: np.ndarray | None = None, workers: int | None = None,
) -> Audit:  # fmt: skip
    """Audit rows of schema.DPO or a corpus.

    `gold`: pairs whose labels are trusted; `more`: further features of whole pairs (N,), such as tokens; `embeddings`
    (M, d): chosen − rejected of the first M pairs. `workers` threads change nothing. Raises InputError without pairs.
    """
    corpus = rows if isinstance(rows, Corpus) else corpus_of(rows)
    workers = workers or min(8, os.cpu_count() or 1)
    seen = survey(corpus, workers)
    values = measures(seen)
    signed = [*signed_features(corpus, seen), *more]
    table = features_of(corpus, seen.buckets, signed, workers)
    seen = replace(seen, buckets=np.zeros(0, np.uint8))
    surfaces = Surfaces(table.found, corpus, signed)
    kinds = strata(corpus, table.found.pairs_read, workers)
    made = _findings(table, corpus, values, surfaces, kinds, gold, workers)
    given = probe(table.found, table.family, values, corpus.groups, kinds, workers)
    rungs = ladder(given, embeddings)
    residual = residual_curve(given, [g.features for _, g in made], next(r for r in rungs if r.name == "ngrams"))
    rules = rule_list(table.found, made)
    listed = _with_rows(made, table, corpus, workers)
    verdict, reasons = judge([f for f, _, _ in listed], rungs, rules, table.found.pairs_read, gates or Gates())
    ids = _ids(listed, corpus)
    findings = [
        replace(f, row_ids=_first(f, where, signs, ids), counter_row_ids=_first(f, where, -signs, ids))
        for f, where, signs in listed
    ]
    limits = [detection_limit(t, corpus.pairs) for t in table.tests.thresholds]
    return Audit(
        verdict, reasons, corpus.pairs, corpus.prompts, table.tests.tried, limits[0], limits[1], tuple(rungs), tuple(residual),
        tuple(rules), tuple(findings), means(values), length_curve(values["characters"]), matches(corpus.columns), kinds.name,
        _not_tested(corpus, table, seen.cut), flagged(listed, rungs, corpus, ids), corpus.content(),
    )  # fmt: skip


def features_of(corpus: Corpus, buckets: np.ndarray, signed: Sequence[Signed], workers: int) -> Table:
    """Count, test and collect. What is left uncounted could not have been significant, whatever its signs."""
    least = 8 if corpus.pairs < 20_000 else 12 if corpus.pairs < 200_000 else 20
    while True:
        counts = tally(corpus, buckets, least, workers)
        tests, family = _tests(counts, signed, corpus)
        if least <= 8 or all(2.0 ** (1 - least) > ALPHA / GROUPS / t.tried for t in tests.thresholds):
            break
        least = 8
    some = counts.count.sum() > ENTRIES
    keep = np.arange(len(counts.keys))
    limit = corpus.pairs
    if some:
        limit = corpus.whole_prompts(min(SAMPLE, corpus.pairs))
        order = np.lexsort((-counts.count, ~tests.significant[: len(keep)]))
        most = np.cumsum(counts.count[order]) * (limit / corpus.pairs) <= ENTRIES
        keep = np.sort(order[most][:200_000])
    found = with_signed(collect(corpus, counts.keys[keep], limit, workers), signed)
    kept = np.concatenate([keep, np.arange(len(counts.keys), len(counts.keys) + len(signed))])
    if some:
        tests = _of(tests, kept)
    tests = with_flips(tests, found, corpus)
    return Table(counts.keys[keep], signed, family[kept], tests, found, limit == corpus.pairs)


def _tests(counts: Counts, signed: Sequence[Signed], corpus: Corpus) -> tuple[Tests, np.ndarray]:
    sums = counts_of(signed, corpus)
    columns = [np.concatenate(c) for c in zip((counts.chosen, counts.rejected, counts.squares), sums, strict=True)]
    family = np.concatenate([counts.family.astype(np.int64), [FAMILIES.index(s.family) for s in signed]]).astype(np.int64)
    return test(*columns, (~np.isin(family, WORDS)).astype(np.uint8)), family


def _of(tests: Tests, kept: np.ndarray) -> Tests:
    names = ("chosen", "rejected", "squares", "group", "z", "p", "p_adjusted", "q")
    return replace(tests, **{n: getattr(tests, n)[kept] for n in names})


def _findings(
    table: Table, corpus: Corpus, values: dict[str, np.ndarray], surfaces: Surfaces, kinds: Strata,
    gold: pa.Table | Corpus | None, workers: int,
) -> list[tuple[Finding, Group]]:  # fmt: skip
    """Findings, gravest first, with their evidence, each as long as its text goes on alike."""
    z_length = z_by_length(table.found, corpus, values["characters"])
    surfaces.read(np.flatnonzero(table.tests.significant).tolist())
    merged = groups(table.found, table.tests, table.family, surfaces)
    sized = [finding(g, table.tests, table.family, z_length, surfaces, corpus.pairs) for g in merged]
    made = in_order([(replace(f, key=_key(table, g.lead)), g) for f, g in zip(sized, merged, strict=True)])
    looked, rest = made[:LOOKED_AT], made[LOOKED_AT:]
    leads = np.array([g.lead for _, g in looked if g.lead < table.of_texts], np.int64)
    near = beside(corpus, table.keys[leads], table.found.pairs_read, workers)
    at = {int(f): i for i, f in enumerate(leads)}
    trusted = _trusted(gold, table, leads, workers)
    models = model_pairs(corpus.columns, table.found.pairs_read)
    full = _whole_texts(looked, table, corpus)
    done = []
    for f, group in looked:
        where, signs = table.found.of(group.lead)
        i = at.get(group.lead)
        tests = collected(
            f.purity, heterogeneity(where, signs, kinds), None if i is None else swapped_purity(near.present[i], near.pairs),
            None if i is None or not near.one_sided[i] else near.copied[i] / near.one_sided[i], f.z, f.z_length_adjusted,
            None if models is None or f.family == "column" else z_within_models(where, signs, models),
            None if i is None or trusted is None else (int(trusted.chosen[i]), int(trusted.rejected[i])),
        )  # fmt: skip
        text = full.get(group.lead, f.feature)
        members = f.members if text == f.feature else (f.feature, *(m for m in f.members if m != text))
        done.append((replace(
            f, feature=text, members=members, heterogeneity=heterogeneity(where, signs, kinds).i_squared, evidence=tests,
            verdict=judged(tests, f.family, never_legitimate(f.feature, f.family)),
        ), group))  # fmt: skip
    return [*done, *rest]


def _key(table: Table, feature: int) -> str:
    return f"{int(table.keys[feature]):016x}" if feature < table.of_texts else ""


def _trusted(gold: pa.Table | Corpus | None, table: Table, leads: np.ndarray, workers: int) -> Counts | None:
    """Counts of the leading features in pairs with trusted labels."""
    if gold is None:
        return None
    corpus = gold if isinstance(gold, Corpus) else corpus_of(gold)
    found = collect(corpus, table.keys[leads], corpus.pairs, workers)
    b = np.add.reduceat(np.append(found.signs > 0, 0).astype(np.int64), np.minimum(found.start[:-1], len(found.signs)))
    b = b * (found.count > 0)
    return Counts(table.keys[leads], b, found.count - b, found.count)


def _whole_texts(looked: Sequence[tuple[Finding, Group]], table: Table, corpus: Corpus) -> dict[int, str]:
    """The text of each finding as far as its occurrences agree."""
    carriers = {}
    for f, group in looked:
        if f.family in TEXT and f.family not in ("whitespace", "character", "format"):
            where, signs = table.found.of(group.lead)
            carriers[group.lead] = (f, where[signs == (1 if f.purity >= 0.5 else -1)][:WITNESSES].tolist())
    texts = corpus.texts_of([p for _, pairs in carriers.values() for p in pairs])
    return {
        lead: grown(f.feature, [texts[p][1 if f.purity >= 0.5 else 2] for p in pairs], f.family == "closer")
        for lead, (f, pairs) in carriers.items()
    }


def rule_list(found: Incidence, made: Sequence[tuple[Finding, Group]]) -> list[Rule]:
    """Greedy: the feature that decides most pairs rightly, less those wrongly, of the pairs no rule has decided yet."""
    left, rules = np.ones(found.pairs_read, bool), []
    usable = [(f, g) for f, g in made if f.family not in ("column", "number")]
    signs = signed_rows(found, np.array([g.lead for _, g in usable], np.int64)) if usable else sparse.csr_matrix((0, len(left)))
    for _ in range(min(RULES, len(usable))):
        remaining = signs @ left.astype(np.int64)
        best = int(np.argmax(np.abs(remaining)))
        row = signs[best].toarray()[0] * left
        decided = int(np.abs(row).sum())
        if abs(int(remaining[best])) < 8:
            break
        right = (decided + abs(int(remaining[best]))) // 2
        rules.append((usable[best][0].feature, "chosen" if remaining[best] > 0 else "rejected", decided, right))
        left &= row == 0
    return rules


Listed = list[tuple[Finding, np.ndarray, np.ndarray]]  # with the pairs that have it, and their signs


def _with_rows(made: Sequence[tuple[Finding, Group]], table: Table, corpus: Corpus, workers: int) -> Listed:
    """Every finding's pairs: all of them from warn on, those of the table for the rest."""
    found, leads = table.found, [g.lead for _, g in made]
    if not table.complete:
        leads = [g.lead for f, g in made if f.severity != "info"]
        keys = np.array([table.keys[i] for i in leads if i < table.of_texts], np.uint64)
        everywhere = collect(corpus, keys, corpus.pairs, workers)
        place = {lead: i for i, lead in enumerate(i for i in leads if i < table.of_texts)}
    listed: Listed = []
    for f, g in made:
        if g.lead >= table.of_texts:
            signs = table.signed[g.lead - table.of_texts].signs
            where = np.flatnonzero(signs)
            listed.append((f, where, signs[where]))
        elif table.complete or f.severity == "info":
            listed.append((f, *found.of(g.lead)))
        else:
            listed.append((f, *everywhere.of(place[g.lead])))
    return listed


def _ids(listed: Listed, corpus: Corpus) -> dict[int, str]:
    """The ids of every pair that is named."""
    wanted = {int(p) for f, where, signs in listed for s in (signs, -signs) for p in _some(f, where, s)}
    for f, where, _ in listed:
        if f.severity != "info":
            wanted.update(where.tolist())
    pairs = sorted(wanted)
    return dict(zip(pairs, pair_ids_of(corpus, pairs), strict=True))


def _some(f: Finding, where: np.ndarray, signs: np.ndarray) -> list[int]:
    found: list[int] = where[signs == (1 if f.purity >= 0.5 else -1)][:ROWS].tolist()
    return found


def _first(f: Finding, where: np.ndarray, signs: np.ndarray, ids: dict[int, str]) -> tuple[str, ...]:
    return tuple(ids[p] for p in _some(f, where, signs))


def flagged(listed: Listed, rungs: Sequence[Rung], corpus: Corpus, ids: dict[int, str]) -> pa.Table:
    """Pairs that a finding from warn on touches: its id, its place in the input, the bits the words rung had of its
    label (null where it was not probed), the findings, and of them the ones that speak for the label."""
    grave = [(f, where, signs) for f, where, signs in listed if f.severity != "info"]
    pairs = np.unique(np.concatenate([w for _, w, _ in grave] or [np.zeros(0, np.int64)])).astype(np.int64)
    names: list[list[str]] = [[] for _ in pairs]
    ahead: list[list[str]] = [[] for _ in pairs]
    for f, where, signs in grave:
        speaks = signs * (1 if f.purity >= 0.5 else -1) > 0
        for i, agrees in zip(np.searchsorted(pairs, where).tolist(), speaks.tolist(), strict=True):
            names[i].append(f.feature)
            if agrees:
                ahead[i].append(f.feature)
    per_pair = next(r for r in rungs if r.name == "ngrams").per_pair
    bits = [float(per_pair[p]) if p < len(per_pair) else None for p in pairs.tolist()]
    return pa.table(
        {
            "pair_id": pa.array([ids[p] for p in pairs.tolist()], pa.string()), "row": pa.array(corpus.rows[pairs], pa.int64()),
            "bits": pa.array(bits, pa.float64()), "findings": pa.array(names, pa.list_(pa.string())),
            "for_the_label": pa.array(ahead, pa.list_(pa.string())),
        }
    )  # fmt: skip


def _not_tested(corpus: Corpus, table: Table, cut: int) -> tuple[str, ...]:
    """What this audit could not look at."""
    found = []
    if cut:
        found.append(f"{cut} answers are longer than {kernel.LONGEST:,} bytes; they were read to there")
    if not table.complete:
        found.append(
            f"all {corpus.pairs:,} pairs were counted; overlap, length, evidence and rules are from {table.found.pairs_read:,} of them"
        )
    if not any(s.family == "token" for s in table.signed):
        found.append("token ids: no tokenizer was given (--tokenizer)")
    if not any(s.family == "column" for s in table.signed):
        found.append("models, positions, annotators: no such column")
    return tuple(found)
