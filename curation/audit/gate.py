"""ShortcutGate: the audit as a stage of a pipeline."""

from dataclasses import dataclass, field
from typing import ClassVar, get_args

import pyarrow as pa

from curation.audit.findings import SEVERITIES
from curation.audit.verdict import FailOn, Gates, refuses
from curation.audit.whole import audit
from curation.errors import GateRefused, InputError
from curation.stage import Outcome, Stage, drops


@dataclass(frozen=True)
class ShortcutGate(Stage):
    """Refuses a set of pairs whose audit is graver than allowed; the rows go on as they are. Raises GateRefused."""

    reads: ClassVar = ("pair_id", "prompt_id", "chosen", "rejected")
    key: ClassVar = "pair_id"
    carries: ClassVar = ("pair_id",)
    whole: ClassVar = True

    fail_on: FailOn = "block"
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        if self.fail_on not in get_args(FailOn):
            raise InputError(
                "ShortcutGate", f"fail_on={self.fail_on!r}", ", ".join(get_args(FailOn)), "name one of them"
            )

    def __call__(self, rows: pa.Table) -> Outcome:
        done = audit(rows, gates=self.gates)
        if refuses(done, self.fail_on):
            raise GateRefused(
                "ShortcutGate", next(iter(done.reasons), f"a finding of {self.fail_on}"), f"an audit below {self.fail_on}",
                "run `thresher audit` on the pairs, mend them, or set fail_on",
            )  # fmt: skip
        counts = {s: float(sum(f.severity == s for f in done.findings)) for s in SEVERITIES}
        return Outcome(rows, drops([]), counts)
