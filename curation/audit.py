"""The shortcut audit: what a preference set would teach besides what it is meant to.

    dpo rows ─> texts ─> one-sided features ─> tests ─> findings ┐
                                       └─────> probe ladder ─────┴─> Audit: verdict, detection limit, evidence

Association, not harm: a finding says that a feature predicts the label. Lexical silence is no proof of absence, and
the detection limit says how small a shortcut this many pairs could have shown.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa

from curation.audit_features import Incidence, Texts, incidence, texts
from curation.audit_findings import SEVERITIES, Finding, findings, signed_rows
from curation.audit_probe import Rung, ladder
from curation.audit_statistics import detection_limit, test
from curation.errors import GateRefused, InputError
from curation.stage import Outcome, Stage, drops

LEAST = 8  # one-sided pairs below which a feature cannot become a finding
RULES = 5
FailOn = Literal["block", "high", "warn", "never"]
NO_COIN = 3.3  # standard errors from a half: one in a thousand
Rule = tuple[str, str, int, int]  # feature, side it speaks for, pairs decided, of them rightly


@dataclass(frozen=True)
class Gates:
    """From which value on a whole set warns or blocks: (warn, block)."""

    length_accuracy: tuple[float, float] = (0.60, 0.70)
    surface_accuracy: tuple[float, float] = (0.65, 0.75)
    ngram_bits: tuple[float, float] = (0.10, 0.30)
    three_rules: tuple[float, float] = (0.60, 0.75)  # accuracy × coverage


@dataclass(frozen=True)
class Audit:
    """What was found. `as_dict` is audit.json."""

    verdict: str  # pass, warn, block
    reasons: tuple[str, ...]
    pairs: int
    prompts: int
    tried: int
    detection_limit: dict[str, float | None]  # purity: smallest coverage found with 90 % power
    probe: tuple[Rung, ...]
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]
    numbers: dict[str, dict[str, float]]
    rows: pa.Table  # pair_id, bits (of the last rung), findings

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict, "reasons": list(self.reasons), "pairs": self.pairs, "prompts": self.prompts,
            "tried": self.tried, "detection_limit": self.detection_limit,
            "probe": {r.name: {"accuracy": r.accuracy, "bits": r.bits} for r in self.probe},
            "rules": [dict(zip(("feature", "side", "decided", "right"), r, strict=True)) for r in self.rules],
            "numbers": self.numbers, "findings": [dataclasses.asdict(f) for f in self.findings],
        }  # fmt: skip


def audit(rows: pa.Table, gates: Gates | None = None) -> Audit:
    """Audit rows of schema.DPO. Raises InputError where there are none."""
    if rows.num_rows == 0:
        raise InputError(
            "audit", "no pairs", "rows with chosen and rejected answers", "see the reasons they were left out"
        )
    given = texts(rows)
    found = incidence(given, LEAST)
    tests = test(found, given)
    listed, leaders = findings(found, tests, given)
    probe = ladder(found, given)
    rules = rule_list(found, leaders, listed, given)
    verdict, reasons = _verdict(listed, probe, rules, given.pairs, gates or Gates())
    return Audit(
        verdict, reasons, given.pairs, given.prompts, tests.tried, detection_limit(tests.tried, given.pairs),
        tuple(probe), rules, tuple(listed), _numbers(given), _rows(found, leaders, listed, probe[-1], given),
    )  # fmt: skip


def rule_list(found: Incidence, leaders: list[int], listed: list[Finding], given: Texts) -> tuple[Rule, ...]:
    """Greedy: the feature that decides most pairs rightly, less those wrongly, of the pairs no rule has decided yet."""
    left, rules = np.ones(given.pairs, bool), []
    signs = signed_rows(found, np.array(leaders, np.int64), given.pairs)
    for _ in range(min(RULES, len(leaders))):
        remaining = signs @ left.astype(np.int64)
        best = int(np.argmax(np.abs(remaining)))
        row = signs[best].toarray()[0] * left
        decided = int(np.abs(row).sum())
        if abs(int(remaining[best])) < LEAST:
            break
        right = (decided + abs(int(remaining[best]))) // 2
        rules.append((listed[best].feature, "chosen" if remaining[best] > 0 else "rejected", decided, right))
        left &= row == 0
    return tuple(rules)


def _verdict(
    listed: list[Finding], probe: list[Rung], rules: tuple[Rule, ...], pairs: int, gates: Gates
) -> tuple[str, tuple[str, ...]]:
    rungs = {r.name: r for r in probe}
    first = rules[:3]
    # A handful of pairs may be told apart by luck: an accuracy counts once no coin would reach it.
    coin = 0.5 + NO_COIN / 2 / pairs**0.5
    length, surface = (rungs[r].accuracy if rungs[r].accuracy >= coin else 0.5 for r in ("length", "surface"))
    measured = {
        "length alone tells the chosen side": (length, gates.length_accuracy),
        "surface counts tell the chosen side": (surface, gates.surface_accuracy),
        "words tell the chosen side, bits per pair at least": (rungs["ngrams"].least_bits, gates.ngram_bits),
        "three rules, accuracy times coverage": (sum(r[3] for r in first) / pairs, gates.three_rules),
    }
    level, reasons = 0, []
    for what, (value, (warn, block)) in measured.items():
        reached = 2 if value >= block else 1 if value >= warn else 0
        level = max(level, reached)
        if reached:
            reasons.append(f"{what}: {value:.2f} (warns at {warn:.2f}, blocks at {block:.2f})")
    for f in listed:
        grade = {"block": 2, "high": 1}.get(f.severity, 0)
        level = max(level, grade)
        if grade:
            reasons.append(f"{f.severity}: {f.feature!r} in {f.coverage:.1%} of pairs, {f.purity:.1%} of them chosen")
    return ("pass", "warn", "block")[level], tuple(reasons)


def _numbers(given: Texts) -> dict[str, dict[str, float]]:
    """Of each measure: how often the chosen side has more, of the pairs in which the sides differ."""
    found = {}
    for name, values in given.numbers.items():
        more, less = int((values[:, 0] > values[:, 1]).sum()), int((values[:, 0] < values[:, 1]).sum())
        found[name] = {
            "chosen_more": more / max(1, more + less), "differ": (more + less) / given.pairs,
            "chosen_mean": float(values[:, 0].mean()), "rejected_mean": float(values[:, 1].mean()),
        }  # fmt: skip
    return found


def _rows(found: Incidence, leaders: list[int], listed: list[Finding], last: Rung, given: Texts) -> pa.Table:
    """Per pair: what the probe knew of its label and which findings speak for it."""
    named: list[list[str]] = [[] for _ in range(given.pairs)]
    signs = signed_rows(found, np.array(leaders, np.int64), given.pairs).tocoo()
    for f, pair in sorted(zip(signs.row.tolist(), signs.col.tolist(), strict=True)):
        named[pair].append(listed[f].feature)
    columns = {"pair_id": given.ids, "bits": last.per_pair, "findings": named}
    return pa.table(
        columns,
        schema=pa.schema([("pair_id", pa.string()), ("bits", pa.float64()), ("findings", pa.list_(pa.string()))]),
    )


@dataclass(frozen=True)
class ShortcutGate(Stage):
    """Refuses a set of pairs whose audit is graver than allowed; the rows go on as they are. Raises GateRefused."""

    reads: ClassVar = ("pair_id", "prompt_id", "chosen", "rejected")
    key: ClassVar = "pair_id"
    carries: ClassVar = ("pair_id",)
    whole: ClassVar = True

    fail_on: FailOn = "block"

    def __post_init__(self) -> None:
        if self.fail_on not in get_args(FailOn):
            raise InputError(
                "ShortcutGate", f"fail_on={self.fail_on!r}", ", ".join(get_args(FailOn)), "name one of them"
            )

    def __call__(self, rows: pa.Table) -> Outcome:
        done = audit(rows)
        if refuses(done, self.fail_on):
            raise GateRefused(
                "ShortcutGate", done.reasons[0], f"an audit below {self.fail_on}",
                "run `thresher audit` on the pairs, mend them, or set fail_on",
            )  # fmt: skip
        counts = {s: float(sum(f.severity == s for f in done.findings)) for s in SEVERITIES}
        return Outcome(rows, drops([]), counts)


def refuses(done: Audit, fail_on: FailOn) -> bool:
    """Whether the gate says no: block by the verdict, high and warn by the gravest finding as well."""
    if fail_on == "never":
        return False
    worst = max((SEVERITIES.index(f.severity) for f in done.findings), default=0)
    if fail_on == "block":
        return done.verdict == "block"
    return (
        done.verdict == "block" or worst >= SEVERITIES.index(fail_on) or (fail_on == "warn" and done.verdict == "warn")
    )
