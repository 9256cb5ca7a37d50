"""A repair from pairs to proof: mended, audited again, mended once more where that brought up something new."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.audit.probe import Rung
from curation.audit.repairs.held_out import held_out
from curation.audit.repairs.manifest import manifest
from curation.audit.repairs.methods import Method
from curation.audit.repairs.pairs import Made, Pairs, pairs_of
from curation.audit.repairs.proof import Checked, Proof, advice, checked
from curation.audit.repairs.pulls import bit_drop, pulled_anew, pulls_of, steps
from curation.audit.repairs.targets import Target, targets_of
from curation.audit.whole import Audit, audit
from curation.errors import InputError
from curation.stage import Outcome, drops

ROUNDS = 5


@dataclass(frozen=True)
class Repair:
    """What came out, and the proof."""

    outcome: Outcome
    manifest: pa.Table  # repairs/manifest.py: every row that is not as it was
    before: Audit
    after: Audit
    proof: Proof

    @property
    def kept(self) -> float:
        """Share of the given pairs that are still there."""
        return self.proof.kept


@dataclass(frozen=True)
class Round:
    """One application and what an audit says of it."""

    made: Made
    pairs: Pairs
    gone: list[tuple[str, str, str]]
    done: Audit
    fresh: list[tuple[Target, float]]  # above info, and not so before; with their pull


def repair(
    rows: pa.Table,
    method: Method,
    targets: Sequence[Target] | None = None,
    only: Sequence[str] = (),
    workers: int | None = None,
) -> Repair:
    """Mend `targets`, or the findings from warn on (of those, what `only` names), and prove it. Raises InputError where
    nothing would be left."""
    workers = workers or min(8, os.cpu_count() or 1)
    given, doubled = pairs_of(rows)
    before = audit(given.corpus, workers=workers)
    first = list(targets if targets is not None else targets_of(before.findings, only))
    listed, known = list(first), {_name(t) for t in targets_of(before.findings)}
    now, rounds = _round(given, method, listed, known, before, workers), 1
    while method.by_targets and rounds < ROUNDS:
        there = {_name(t) for t in listed}
        more = [t for t, _ in now.fresh if _name(t) not in there]
        if not more:
            break
        listed += more
        now, rounds = _round(given, method, listed, known, before, workers), rounds + 1
        if not any(now.made.covers(t) for t in more):
            break
    listed = [t for t in listed if t in first or now.made.covers(t)]
    gone = [*doubled, *now.gone]
    after, kept = now.pairs, _kept(given, now.pairs)
    proof = Proof(
        method=method.name, tolerance=method.tolerance, pairs=(given.corpus.pairs, after.corpus.pairs), kept=kept,
        ess=float(after.weights.sum() ** 2 / (after.weights**2).sum() / len(after.weights)),
        checked=_checked(now.made, method.tolerance, listed, known, given, after, workers),
        bits=bit_drop((given, _words(before)), (after, _words(now.done))), bits_are_of="the texts, pairs by their weight",
        fresh=tuple((t, pull) for t, pull in now.fresh), rounds=rounds,
        held_out=tuple(held_out(given, after, method, only, workers)),
        advice=tuple(advice(before, method.name, kept, now.made.notes)), says=tuple(now.made.says), notes=now.made.notes,
        verdicts=(before.verdict, now.done.verdict),
    )  # fmt: skip
    outcome = Outcome(after.rows, drops(gone), {"kept": kept, "ess": proof.ess})
    listing = manifest(rows, after.rows, gone, now.made.why, method.name)
    return Repair(outcome, listing, before, now.done, proof)


def _round(
    given: Pairs, method: Method, listed: Sequence[Target], known: set[str], before: Audit, workers: int
) -> Round:
    made = method(given, listed, workers)
    if made.rows.num_rows == 0:
        raise InputError(
            f"repair by {method.name}", "no pair left", "counter-examples of the listed features",
            "one model wrote each side: sample both sides from the same model instead",
        )  # fmt: skip
    pairs, doubled = pairs_of(made.rows)
    same = pairs.corpus.content() == given.corpus.content()
    done = before if same else audit(pairs.corpus, workers=workers)
    # What stood among a finding's members may lead now: the same text is the same phenomenon.
    texts = {text for f in before.findings if f.severity != "info" for text in (f.feature, *f.members)}
    grave = [f for f in done.findings if f.severity != "info" and f.feature not in texts]
    fresh = [(t, f.pull) for f in grave for t in targets_of([f]) if _name(t) not in known]
    if np.ptp(steps(pairs)) > 1e-12 and same:
        fresh += [(t, p.value) for t, p in pulled_anew(given, pairs, workers) if _name(t) not in known]
    return Round(made, pairs, [*made.gone, *doubled], done, fresh)


def _name(t: Target) -> str:
    """What a feature is known by: its text may be grown to another length in another set."""
    return t.key or f"{t.family}: {t.feature}"


def _kept(given: Pairs, after: Pairs) -> float:
    there = set(after.ids)
    return sum(i in there for i in given.ids) / given.corpus.pairs


def _words(done: Audit) -> Rung:
    return next(r for r in done.probe if r.name == "ngrams")


def _checked(
    made: Made, tolerance: float, listed: Sequence[Target], known: set[str], given: Pairs, after: Pairs, workers: int
) -> tuple[Checked, ...]:
    """Every listed feature before and after."""
    was, now = pulls_of(given, listed, workers), pulls_of(after, listed, workers)
    return tuple(
        checked(t, a, b, made.covers(t), tolerance, _name(t) in known) for t, a, b in zip(listed, was, now, strict=True)
    )
