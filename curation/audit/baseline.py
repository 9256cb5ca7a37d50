"""No worse than last time: an audit against an earlier one's audit.json.

A set is worse where

    its verdict is graver
    a finding from warn on is new       nothing of its name, or among its other forms, was found on that side before
    a finding is graver                 its severity rose to warn or beyond, or its pull grew so far that the intervals of
                                        then and now no longer touch
    a probe's bits grew                 by more than 2.33 standard errors of the difference (one in a hundred by luck)

What was known and has not grown is accepted, however grave it is.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from curation.audit.findings import SEVERITIES, Finding
from curation.audit.probe import Rung
from curation.audit.verdict import VERDICTS
from curation.audit.whole import Audit
from curation.errors import InputError

LARGEST = 256 * 2**20  # bytes of an audit.json
BEYOND = 2.33  # standard errors
EXPECTED = "an audit.json that `thresher audit` wrote"
Value = TypeVar("Value")


class Known(NamedTuple):
    """A finding of the earlier audit."""

    feature: str
    family: str
    severity: str
    pull: float
    pull_interval: tuple[float, float]
    members: tuple[str, ...]


class Graver(NamedTuple):
    """A finding that grew, and what it was."""

    finding: Finding
    was: Known


class Step(NamedTuple):
    """A probe that tells more than it did, in bits per pair."""

    name: str
    was: float
    now: float
    noise: float  # what luck may do


@dataclass(frozen=True)
class Comparison:
    """What changed since the earlier audit, gravest first."""

    verdict: tuple[str, str]  # then, now
    pairs: tuple[int, int]
    new: tuple[Finding, ...]
    graver: tuple[Graver, ...]
    gone: tuple[Known, ...]  # from warn on then, not now
    same: tuple[Finding, ...]  # from warn on, known and not grown
    probe: tuple[Step, ...]

    @property
    def worse(self) -> bool:
        then, now = (VERDICTS.index(v) for v in self.verdict)
        return now > then or bool(self.new or self.graver or self.probe)


def read_baseline(path: str) -> dict[str, Any]:
    """An earlier audit.json as it stands. Raises InputError where it is none."""
    file = Path(path)
    try:
        if file.stat().st_size > LARGEST:
            raise _wrong("a file of more than 256 MB", path)
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else type(e).__name__
        raise _wrong(why, path) from e
    _earlier(found, path)
    return dict(found)


def compare(done: Audit, earlier: Mapping[str, Any]) -> Comparison:
    """An audit against what an earlier audit.json holds. Raises InputError where that is not one."""
    verdict, pairs, probe, known = _earlier(earlier, "baseline")
    names: dict[str, list[int]] = {}
    for i, k in enumerate(known):
        for name in {k.feature, *k.members}:
            names.setdefault(name, []).append(i)
    new, graver, same, met = [], [], [], set()
    for f in (f for f in done.findings if f.severity != "info"):
        at = _match(f, known, names)
        met.add(at)
        if at is None:
            new.append(f)
        elif _grew(f, known[at]):
            graver.append(Graver(f, known[at]))
        else:
            same.append(f)
    gone = tuple(k for i, k in enumerate(known) if k.severity != "info" and i not in met)
    return Comparison(
        (verdict, done.verdict), (pairs, done.pairs), tuple(new), tuple(graver), gone, tuple(same),
        tuple(s for s in (_step(r, probe[r.name], pairs) for r in done.probe if r.name in probe) if s.now - s.was > s.noise),
    )  # fmt: skip


def _match(f: Finding, known: Sequence[Known], names: Mapping[str, Sequence[int]]) -> int | None:
    """The earlier finding that is this one: on the same side, by its text or among the other forms of either; of
    several the one whose pull is nearest. `names`: which earlier findings have a name."""
    forms = {f.feature, *f.members}
    near = {i for form in forms for i in names.get(form, ())}
    close = [
        (k.feature != f.feature, k.family != f.family, abs(k.pull - f.pull), i)
        for i, k in ((i, known[i]) for i in near)
        if k.pull * f.pull > 0 and (k.feature in forms or f.feature in k.members)
    ]
    return min(close)[-1] if close else None


def _grew(f: Finding, was: Known) -> bool:
    if SEVERITIES.index(f.severity) > SEVERITIES.index(was.severity):
        return True
    side = 1 if f.pull > 0 else -1
    least_now = min(side * end for end in f.pull_interval)
    most_then = max(side * was.pull, *(side * end for end in was.pull_interval))
    return least_now > most_then


def _step(rung: Rung, was: tuple[float, int], pairs: int) -> Step:
    """Luck is measured by how far single pairs differ now; then it was much the same."""
    bits, probed = was
    n = max(1, len(rung.per_pair))
    error = float(rung.per_pair.std()) * (1 / n + 1 / max(1, probed or min(pairs, n))) ** 0.5
    return Step(rung.name, bits, rung.bits, max(BEYOND * error, 1e-9))


def _earlier(found: Any, where: str) -> tuple[str, int, dict[str, tuple[float, int]], list[Known]]:
    """(verdict, pairs, {rung: (bits, pairs probed)}, findings) of an audit.json from anywhere."""
    of = _table(found, "the file", where)
    verdict, pairs = _one_of(of.get("verdict"), VERDICTS, "verdict", where), _whole(of.get("pairs"), "pairs", where)
    probe = {
        str(name): (
            _number(_table(rung, "probe", where).get("bits"), "bits of a probe", where),
            _whole(rung.get("pairs", 0), "pairs of a probe", where),
        )
        for name, rung in _table(of.get("probe"), "probe", where).items()
    }
    return verdict, pairs, probe, [_known(f, where) for f in _list(of.get("findings"), "findings", where)]


def _known(found: Any, where: str) -> Known:
    of = _table(found, "a finding", where)
    pull = _number(of.get("pull"), "pull", where)
    low, high = _two(of.get("pull_interval", (pull, pull)), "pull_interval", where)
    return Known(
        _text(of.get("feature"), "feature", where), _text(of.get("family"), "family", where),
        _one_of(of.get("severity"), SEVERITIES, "severity", where), pull, (low, high),
        tuple(_text(m, "members", where) for m in _list(of.get("members", []), "members", where)),
    )  # fmt: skip


def _wrong(found: str, where: str) -> InputError:
    return InputError(where, found, EXPECTED, "audit the earlier set again, or leave out --baseline")


def _checked(test: Callable[[Any], bool], value: Value, name: str, where: str) -> Value:
    if not test(value):
        shown = f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(value)
        raise _wrong(f"{name}: {shown}"[:80], where)
    return value


def _table(value: Any, name: str, where: str) -> dict[str, Any]:
    found: dict[str, Any] = _checked(lambda v: isinstance(v, dict), value, name, where)
    return found


def _list(value: Any, name: str, where: str) -> Sequence[Any]:
    found: Sequence[Any] = _checked(lambda v: isinstance(v, list | tuple), value, name, where)
    return found


def _text(value: Any, name: str, where: str) -> str:
    found: str = _checked(lambda v: isinstance(v, str), value, name, where)
    return found


def _one_of(value: Any, known: Sequence[str], name: str, where: str) -> str:
    found: str = _checked(lambda v: isinstance(v, str) and v in known, value, name, where)
    return found


def _number(value: Any, name: str, where: str) -> float:
    _checked(lambda v: isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e300, value, name, where)
    return float(value)


def _whole(value: Any, name: str, where: str) -> int:
    found: int = _checked(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 2**63, value, name, where
    )
    return found


def _two(value: Any, name: str, where: str) -> tuple[float, float]:
    ends = _checked(lambda v: len(v) == 2, _list(value, name, where), name, where)
    return _number(ends[0], name, where), _number(ends[1], name, where)
