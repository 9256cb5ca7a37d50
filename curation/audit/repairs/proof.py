"""The proof of a repair: equivalence, not silence. A pull is mended where it is at most the tolerance, counted anew."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.audit.repairs.pulls import Drop, Pull
from curation.audit.repairs.targets import Target
from curation.audit.whole import Audit

FLAT = 0.6  # share of the probe's bits that is left without the strongest phenomena
MANY = 80  # phenomena
FEW = 20  # below so many what is left is no fingerprint yet
TOLD = 0.1  # bits from which on a flat curve matters
HALF = 0.5


@dataclass(frozen=True)
class Checked:
    """One listed feature."""

    family: str
    feature: str
    key: str
    before: Pull
    after: Pull
    covered: bool  # the method answers for it
    equivalent: bool  # |pull| is at most the tolerance
    interval_inside: bool  # and so is its whole 95 % interval: new prompts like these would say so too
    listed_by: str  # "audit", or "repair": an audit of what an earlier round made

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "before": self.before._asdict(), "after": self.after._asdict()}


@dataclass(frozen=True)
class Half:
    """A half of the prompts, mended by what an audit of the other half alone had listed."""

    pairs: int
    listed: int
    equivalent: int
    largest_before: float  # |pull|
    largest_after: float
    kept: float
    above_info_before: int
    above_info_after: int


@dataclass(frozen=True)
class Proof:
    """What was claimed and what was measured. `as_dict` is proof.json."""

    method: str
    tolerance: float
    pairs: tuple[int, int]
    kept: float
    ess: float  # share of the pairs that the weights are worth
    checked: tuple[Checked, ...]
    bits: Drop
    bits_are_of: str
    fresh: tuple[tuple[Target, float], ...]  # above info, and not so before, with their pull
    rounds: int
    held_out: tuple[Half, ...]
    advice: tuple[str, ...]
    says: tuple[str, ...]
    notes: Mapping[str, Any]
    verdicts: tuple[str, str]

    @property
    def proven(self) -> bool:
        """Every feature the method answers for is equivalent, there is one, or none was listed, and nothing is new."""
        held = [c.equivalent for c in self.checked if c.covered]
        return all(held) and not self.fresh and (bool(held) or not self.checked)

    def as_dict(self) -> dict[str, Any]:
        found = dataclasses.asdict(self)
        return {
            "proven": self.proven, **found, "bits": self.bits._asdict(),
            "checked": [c.as_dict() for c in self.checked],
            "fresh": [{**t._asdict(), "pull": pull} for t, pull in self.fresh],
        }  # fmt: skip


def checked(target: Target, before: Pull, after: Pull, covered: bool, tolerance: float, audited: bool) -> Checked:
    edge = tolerance + 1e-9
    return Checked(
        *target, before, after, covered, abs(after.value) <= edge, after.low >= -edge and after.high <= edge,
        "audit" if audited else "repair",
    )  # fmt: skip


def advice(before: Audit, method: str, kept: float, notes: Mapping[str, Any]) -> list[str]:
    """Where no repair of these answers will do."""
    found = []
    if before.residual:
        first = before.residual[0]
        last = next((r for r in before.residual if r.removed >= MANY), before.residual[-1])
        if first.bits >= TOLD and last.bits > FLAT * first.bits:
            told = f"words still tell {last.bits:.2f} of {first.bits:.2f} bits a pair"
            left = f"without the {last.removed} strongest phenomena {told}"
            found.append(
                f"regenerate: {left}. That is who wrote which side, and no edit takes it away; sample both sides from one model"
                if last.removed >= FEW
                else f"{left}, spread over words too faint to be findings: repairs of single features do not reach them"
            )
    if method == "balance" and kept < HALF:
        found.append(f"regenerate: only {kept:.0%} of the pairs could stay; sample both sides from one model")
    if method == "reweight" and notes.get("ess", 1.0) < HALF:
        found.append(
            f"regenerate: the weights are worth only {notes['ess']:.0%} of the pairs; sample both sides from one model"
        )
    return found


def largest(pulls: Sequence[Pull]) -> float:
    return max((abs(p.value) for p in pulls), default=0.0)
