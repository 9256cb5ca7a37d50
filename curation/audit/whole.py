"""The audit from texts to verdict."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from curation.audit import kernel, lexicons
from curation.audit.corpus import Corpus
from curation.audit.dossier import Listed, flagged, found_triggers, listed_findings, named
from curation.audit.features import survey
from curation.audit.findings import Finding, gravest_first, signed_rows
from curation.audit.incidence import Incidence, Signed
from curation.audit.overview import Curve, Match, length_curve, matches, means
from curation.audit.probe import Residual, Rung, ladder, probe, residual_curve
from curation.audit.reading import corpus_of
from curation.audit.signed import measure, measures
from curation.audit.statistics import ALPHA, detection_limit
from curation.audit.strata import strata
from curation.audit.surface import Surfaces
from curation.audit.table import OF_LARGER, SAMPLE, Table, table_of
from curation.audit.verdict import Gates, Rule, judge

RULES = 5


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
            "strata": self.strata, "lexicons": lexicons.VERSION, "not_tested": list(self.not_tested),
            "findings": [f.as_dict() for f in self.findings],
        }  # fmt: skip


def audit(
    rows: pa.Table | Corpus, gates: Gates | None = None, gold: pa.Table | Corpus | None = None,
    more: Sequence[Signed] = (), embeddings: np.ndarray | None = None, workers: int | None = None, sample: int = SAMPLE,
) -> Audit:  # fmt: skip
    """Audit rows of schema.DPO or a corpus.

    `gold`: pairs whose labels are trusted; `more`: further features of whole pairs (N,), such as tokens; `embeddings`
    (M, d): chosen − rejected of the first M pairs; `sample`: bytes of text up to which every feature is looked at in
    every pair; of larger sets, in seven tenths of that. `workers` threads change nothing. Raises InputError without pairs.
    """
    corpus = rows if isinstance(rows, Corpus) else corpus_of(rows)
    workers = workers or min(8, os.cpu_count() or 1)
    limit = corpus.pairs if corpus.sizes.sum() <= sample else corpus.sample(int(OF_LARGER * sample))
    table, seen = table_of(corpus, survey(corpus, workers, limit), limit, workers, more)
    characters, signed = measure(seen, "characters"), table.signed
    surfaces = Surfaces(table.found, corpus, signed)
    kinds = strata(corpus, table.found.pairs_read, workers)
    listed = listed_findings(table, corpus, characters, surfaces, kinds, gold, workers)
    given = probe(
        table.found, table.family, dict(measures(seen, table.found.pairs_read)), corpus.groups, kinds, workers
    )
    rungs = ladder(given, embeddings)
    words = next(r for r in rungs if r.name == "ngrams")
    residual = residual_curve(given, [x.group.features for x in listed if x.group], words)
    listed += found_triggers(corpus, _axes(characters, signed, words), workers)
    listed.sort(key=lambda x: gravest_first(x.finding))
    rules = rule_list(table.found, listed)
    findings, ids = named(listed, corpus)
    verdict, reasons = judge(findings, rungs, rules, table.found.pairs_read, gates or Gates())
    limits = [detection_limit(t, corpus.pairs, table.found.pairs_read) for t in table.tests.thresholds]
    return Audit(
        verdict, reasons, corpus.pairs, corpus.prompts, table.tests.tried, limits[0], limits[1], tuple(rungs), tuple(residual),
        tuple(rules), tuple(findings), means(measures(seen)), length_curve(characters), matches(corpus.columns), kinds.name,
        _not_tested(corpus, table, seen.cut), flagged(listed, words, corpus, ids), corpus.content(),
    )  # fmt: skip


def _axes(characters: np.ndarray, signed: Sequence[Signed], words: Rung) -> dict[str, np.ndarray]:
    """Directions along which a trigger may turn the preference."""
    found = {"the longer answer": np.sign(characters[:, 0] - characters[:, 1])}
    refusals = [s.signs for s in signed if s.name == "refusal"]
    if refusals:
        found["the answer that refuses"] = refusals[0]
    return {**found, "what words usually favour": np.sign(words.per_pair)}


def rule_list(found: Incidence, listed: Sequence[Listed]) -> list[Rule]:
    """Greedy: the feature that decides most pairs rightly, less those wrongly, of the pairs no rule has decided yet."""
    left, rules = np.ones(found.pairs_read, bool), []
    usable = [(x.finding, x.group) for x in listed if x.group and x.finding.family not in ("column", "number")]
    signs = (
        signed_rows(found, np.array([g.lead for _, g in usable], np.int64))
        if usable
        else sparse.csr_matrix((0, len(left)))
    )
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


def _not_tested(corpus: Corpus, table: Table, cut: int) -> tuple[str, ...]:
    """What this audit could not look at."""
    found = []
    if cut:
        found.append(f"{cut} answers are longer than {kernel.LONGEST:,} bytes; they were read to there")
    if not table.complete:
        read = f"{table.found.pairs_read:,} of them"
        found.append(f"all {corpus.pairs:,} pairs were counted; overlap, length, evidence and rules are from {read}")
    if not any(s.family == "token" for s in table.signed):
        found.append(
            "token ids: no tokenizer was given, or none of them stands on one side alone in 8 pairs (--tokenizer)"
        )
    if not any(s.family == "column" for s in table.signed):
        found.append("models, positions, annotators: no such column, or it is the same on both sides")
    return tuple(found)
