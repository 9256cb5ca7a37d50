"""When a set is refused: limits on the whole set and the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from curation.audit.findings import SEVERITIES, Finding
from curation.audit.probe import Rung
from curation.errors import InputError

FailOn = Literal["block", "high", "warn", "never"]
VERDICTS = ("pass", "warn", "block")
NO_COIN = 3.3  # standard errors from a half: one in a thousand
Rule = tuple[str, str, int, int]  # feature, side it speaks for, pairs decided, of them rightly


@dataclass(frozen=True)
class Gates:
    """From which value on a whole set warns or blocks: (warn, block)."""

    length_accuracy: tuple[float, float] = (0.60, 0.70)
    surface_accuracy: tuple[float, float] = (0.65, 0.75)
    ngram_bits: tuple[float, float] = (0.10, 0.30)
    three_rules: tuple[float, float] = (0.60, 0.75)  # accuracy × coverage


class Refusable(Protocol):
    @property
    def verdict(self) -> str: ...
    @property
    def findings(self) -> Sequence[Finding]: ...


def judge(
    findings: Sequence[Finding], probe: Sequence[Rung], rules: Sequence[Rule], pairs: int, gates: Gates
) -> tuple[str, tuple[str, ...]]:
    """The verdict and its reasons. `pairs`: how many the rules were tried on."""
    rungs = {r.name: r for r in probe}
    # A handful of pairs may be told apart by luck: an accuracy counts once no coin would reach it.
    coin = 0.5 + NO_COIN / 2 / max(1, len(probe[0].per_pair)) ** 0.5
    length, surface = (rungs[r].accuracy if rungs[r].accuracy >= coin else 0.5 for r in ("length", "surface"))
    measured = {
        "length alone tells the chosen side": (length, gates.length_accuracy),
        "surface counts tell the chosen side": (surface, gates.surface_accuracy),
        "words tell the chosen side, bits per pair at least": (rungs["ngrams"].least_bits, gates.ngram_bits),
        "three rules, accuracy times coverage": (sum(r[3] for r in rules[:3]) / max(1, pairs), gates.three_rules),
    }
    level, reasons = 0, []
    for what, (value, (warn, block)) in measured.items():
        reached = 2 if value >= block else 1 if value >= warn else 0
        level = max(level, reached)
        if reached:
            reasons.append(f"{what}: {value:.2f} (warns at {warn:.2f}, blocks at {block:.2f})")
    for f in findings:
        grade = {"block": 2, "high": 1}.get(f.severity, 0)
        level = max(level, grade)
        if grade:
            reasons.append(f"{f.severity}: {f.feature!r} in {f.coverage:.1%} of pairs, {f.purity:.1%} of them chosen")
    return VERDICTS[level], tuple(reasons)


def refuses(done: Refusable, fail_on: FailOn) -> bool:
    """Whether the gate says no: block by the verdict, high and warn by the gravest finding as well."""
    if fail_on == "never":
        return False
    worst = max((SEVERITIES.index(f.severity) for f in done.findings), default=0)
    if fail_on == "block":
        return done.verdict == "block"
    return (
        done.verdict == "block" or worst >= SEVERITIES.index(fail_on) or (fail_on == "warn" and done.verdict == "warn")
    )


def as_gates(given: dict[str, Any]) -> Gates:
    """Gates from a settings file: {name: [warn, block]}. Raises InputError for unknown names or limits out of order."""
    known = vars(Gates()).copy()
    for name, value in given.items():
        right = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
        if name not in known or not right or value[0] > value[1]:
            raise InputError(
                "gates", f"{name}: {value!r}"[:80], f"{', '.join(known)}: [warn, block]", "mend the setting"
            )
    return Gates(**{**known, **{n: (float(v[0]), float(v[1])) for n, v in given.items()}})
