"""From tests to findings with their evidence, rows and whole texts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curation.audit.corpus import Corpus, whole_numbers
from curation.audit.evidence import Evidence, beside, collected, judged, model_pairs, swapped_purity, z_within_models
from curation.audit.features import collect
from curation.audit.findings import (
    TEXT,
    Counted,
    Finding,
    Group,
    finding,
    gravest_first,
    groups,
    never_legitimate,
    sized,
)
from curation.audit.incidence import Counts, Incidence
from curation.audit.probe import Rung
from curation.audit.reading import corpus_of, pair_ids_of
from curation.audit.statistics import ByLength
from curation.audit.strata import Strata, heterogeneity
from curation.audit.surface import WITNESSES, Surfaces, grown
from curation.audit.table import Table
from curation.audit.together import PAIRS as TOGETHER_PAIRS
from curation.audit.together import WORDS as TOGETHER
from curation.audit.together import together
from curation.audit.triggers import prompt_features, triggers

ROWS = 20  # ids listed with a finding
LOOKED_AT = 400  # findings, gravest first, that get evidence and grow to their whole text
UNTEXTED = ("whitespace", "character", "format")  # texts that are whole as they are


class Listed(NamedTuple):
    """A finding and the pairs it is about; `group` where it stands in the table."""

    finding: Finding
    pairs: np.ndarray
    signs: np.ndarray
    group: Group | None


def listed_findings(
    table: Table, corpus: Corpus, lengths: np.ndarray, surfaces: Surfaces, kinds: Strata, gold: pa.Table | Corpus | None,
    workers: int,
) -> list[Listed]:  # fmt: skip
    """Findings, gravest first, with their evidence and pairs. `lengths` (N, 2): characters of both sides."""
    by_length = ByLength.of(table.found, lengths)
    strong = np.flatnonzero(table.tests.significant)
    z_length = np.zeros(table.found.size)
    z_length[strong] = by_length.z(table.found.part(strong), corpus)
    surfaces.read(strong.tolist())
    merged = groups(table.found, table.tests, table.family, surfaces)
    made = []
    for g in merged:
        key = f"{int(table.keys[g.lead]):016x}" if g.lead < table.of_texts else ""
        sized_one = finding(g, table.tests, table.family, z_length, surfaces, corpus.pairs)
        made.append((replace(sized_one, key=key), g))
    made.sort(key=lambda m: gravest_first(m[0]))
    told = [*_with_evidence(made[:LOOKED_AT], table, corpus, kinds, gold, workers), *made[LOOKED_AT:]]
    listed = _with_rows(told, table, corpus, workers)
    listed += _combinations(table, corpus, by_length, surfaces, workers)
    return sorted(listed, key=lambda x: gravest_first(x.finding))


def _with_evidence(
    looked: Sequence[tuple[Finding, Group]], table: Table, corpus: Corpus, kinds: Strata, gold: pa.Table | Corpus | None,
    workers: int,
) -> list[tuple[Finding, Group]]:  # fmt: skip
    leads = np.array([g.lead for _, g in looked if g.lead < table.of_texts], np.int64)
    near = beside(corpus, table.keys[leads], table.found.pairs_read, workers)
    at = {int(f): i for i, f in enumerate(leads)}
    trusted = _trusted(gold, table, leads, workers)
    models = model_pairs(corpus.columns, table.found.pairs_read)
    full = _whole_texts(looked, table, corpus)
    done = []
    for f, group in looked:
        where, signs = table.found.of(group.lead)
        i, varies = at.get(group.lead), heterogeneity(where, signs, kinds)
        evidence: tuple[Evidence, ...] = collected(
            f.purity, varies, None if i is None else swapped_purity(near.present[i], near.pairs),
            None if i is None or not near.one_sided[i] else near.copied[i] / near.one_sided[i], f.z, f.z_length_adjusted,
            None if models is None or f.family == "column" else z_within_models(where, signs, models),
            None if i is None or trusted is None else (int(trusted.chosen[i]), int(trusted.rejected[i])),
        )  # fmt: skip
        text = full.get(group.lead, f.feature)
        members = f.members if text == f.feature else (f.feature, *(m for m in f.members if m != text))
        verdict = judged(evidence, f.family, never_legitimate(f.feature, f.family))
        told = replace(
            f, feature=text, members=members, heterogeneity=varies.i_squared, evidence=evidence, verdict=verdict
        )
        done.append((told, group))
    return done


def _trusted(gold: pa.Table | Corpus | None, table: Table, leads: np.ndarray, workers: int) -> Counts | None:
    """Counts of the leading features in pairs with trusted labels."""
    if gold is None:
        return None
    corpus = gold if isinstance(gold, Corpus) else corpus_of(gold)
    found = collect(corpus, table.keys[leads], corpus.pairs, workers)
    ahead = np.append(found.signs > 0, False).astype(np.int64)
    b = np.add.reduceat(ahead, np.minimum(found.start[:-1], len(found.signs))) * (found.count > 0)
    return Counts(table.keys[leads], b, found.count - b, found.count)


def _whole_texts(looked: Sequence[tuple[Finding, Group]], table: Table, corpus: Corpus) -> dict[int, str]:
    """The text of each finding as far as its occurrences agree."""
    carriers = {}
    for f, group in looked:
        if f.family in TEXT and f.family not in UNTEXTED:
            where, signs = table.found.of(group.lead)
            carriers[group.lead] = (f, where[signs == (1 if f.purity >= 0.5 else -1)][:WITNESSES].tolist())
    texts = corpus.texts_of([p for _, pairs in carriers.values() for p in pairs])
    return {
        lead: grown(f.feature, [texts[p][1 if f.purity >= 0.5 else 2] for p in pairs], f.family == "closer")
        for lead, (f, pairs) in carriers.items()
    }


def _with_rows(made: Sequence[tuple[Finding, Group]], table: Table, corpus: Corpus, workers: int) -> list[Listed]:
    """Every finding's pairs: all of them from warn on, those of the table for the rest."""
    place: dict[int, int] = {}
    if not table.complete:
        leads = [
            g.lead for f, g in made if f.severity != "info" and g.lead < table.of_texts and g.lead not in table.whole
        ]
        place = {lead: i for i, lead in enumerate(leads)}
    everywhere = collect(corpus, table.keys[list(place)], corpus.pairs, workers) if place else table.found
    listed = []
    for f, g in made:
        if g.lead >= table.of_texts:
            signs = table.signed[g.lead - table.of_texts].signs
            where = np.flatnonzero(signs)
            listed.append(Listed(f, where, signs[where], g))
        elif g.lead in table.whole:
            listed.append(Listed(f, *table.whole[g.lead], g))
        else:
            listed.append(Listed(f, *(everywhere.of(place[g.lead]) if g.lead in place else table.found.of(g.lead)), g))
    return listed


def _combinations(table: Table, corpus: Corpus, by_length: ByLength, surfaces: Surfaces, workers: int) -> list[Listed]:
    """Words that are one-sided only together."""
    words = np.flatnonzero(table.family[: table.of_texts] == 0)
    words = np.sort(words[np.argsort(-table.tests.count[words], kind="stable")[:TOGETHER]])
    if len(words) < 2:
        return []
    read = corpus.whole_prompts(TOGETHER_PAIRS)
    listed: list[Listed] = []
    for t in together(corpus, table.keys[words], table.tests.z[words], workers):
        if any(len(np.intersect1d(t.pairs, x.pairs)) > 0.5 * len(t.pairs) for x in listed):
            continue
        names = [surfaces.of(int(words[w])) for w in t.words]
        z_length = float(by_length.z(Incidence.one(t.pairs, t.signs, read), corpus)[0])
        b = int((t.signs > 0).sum())
        counted = Counted(
            " … ".join(names), "together", b, len(t.pairs) - b, t.squares, t.z, z_length, t.p, t.p_adjusted, t.p_adjusted,
            tuple(names),
        )  # fmt: skip
        listed.append(Listed(sized(counted, read), t.pairs, t.signs, None))
    return listed


def found_triggers(corpus: Corpus, axes: Mapping[str, np.ndarray], workers: int) -> list[Listed]:
    """Findings in prompts: what turns the preference round along an axis (signs (M,))."""
    prompts = prompt_features(corpus, workers)
    listed = []
    for t in triggers(prompts, axes, corpus.groups):
        pair, _, start, end = prompts.found.example[t.feature].tolist()
        texts = corpus.texts_of([pair, *t.pairs[:WITNESSES].tolist()])
        text = texts[pair][0][start:end].decode("utf-8", "replace")
        text = grown(text, [texts[p][0] for p in t.pairs[:WITNESSES].tolist()], at_end=False)
        sums = np.bincount(corpus.groups[t.pairs], t.signs, minlength=1)
        b, n = int((t.signs > 0).sum()), len(t.pairs)
        counted = Counted(
            text, "trigger", b, n - b, int((sums**2).sum()), t.z, t.z, t.p, t.p_adjusted, t.p_adjusted,
            (f"in the prompt; {t.axis} is chosen in {b / n:.0%} of its pairs, {t.usual:.0%} elsewhere",),
        )  # fmt: skip
        listed.append(Listed(sized(counted, prompts.found.pairs_read), t.pairs, t.signs, None))
    return listed


def named(listed: Sequence[Listed], corpus: Corpus) -> tuple[list[Finding], dict[int, str]]:
    """The findings with the ids of rows that speak for and against each, and the ids of every pair that is named."""
    wanted: set[int] = set()
    for f, where, signs, _ in listed:
        wanted.update(_some(f, where, signs), _some(f, where, -signs))
        if f.severity != "info":
            wanted.update(where.tolist())
    pairs = sorted(wanted)
    ids = dict(zip(pairs, pair_ids_of(corpus, pairs), strict=True))
    findings = [
        replace(
            f, row_ids=tuple(ids[p] for p in _some(f, where, signs)),
            counter_row_ids=tuple(ids[p] for p in _some(f, where, -signs)),
            examples=tuple(_some(f, where, signs)), counter_examples=tuple(_some(f, where, -signs)),
        )
        for f, where, signs, _ in listed
    ]  # fmt: skip
    return findings, ids


def _some(f: Finding, where: np.ndarray, signs: np.ndarray) -> list[int]:
    found: list[int] = where[signs == (1 if f.purity >= 0.5 else -1)][:ROWS].tolist()
    return found


def flagged(listed: Sequence[Listed], words: Rung, corpus: Corpus, ids: Mapping[int, str]) -> pa.Table:
    """Pairs that a finding from warn on touches: id, place in the input, the bits that words had of its label (null
    where it was not probed), the findings, and of them the ones that speak for the label."""
    grave = [x for x in listed if x.finding.severity != "info"]
    pairs = np.unique(np.concatenate([x.pairs.astype(np.int64) for x in grave] or [np.zeros(0, np.int64)]))
    names: list[list[str]] = [[] for _ in pairs]
    ahead: list[list[str]] = [[] for _ in pairs]
    for f, where, signs, _ in grave:
        speaks = signs * (1 if f.purity >= 0.5 else -1) > 0
        for i, agrees in zip(np.searchsorted(pairs, where).tolist(), speaks.tolist(), strict=True):
            names[i].append(f.feature)
            if agrees:
                ahead[i].append(f.feature)
    bits = [float(words.per_pair[p]) if p < len(words.per_pair) else None for p in pairs.tolist()]
    columns = {
        "pair_id": pa.array([ids[p] for p in pairs.tolist()], pa.string()), "row": whole_numbers(corpus.rows[pairs]),
        "bits": pa.array(bits, pa.float64()), "findings": pa.array(names, pa.list_(pa.string())),
        "for_the_label": pa.array(ahead, pa.list_(pa.string())),
    }  # fmt: skip
    return pa.table(columns)
