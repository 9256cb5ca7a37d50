"""The shortcut audit: what a preference set would teach besides what it is meant to.

    corpus ─ survey ─ tally ─> tests ─ collect ─> findings, evidence ┐
                                       └────────> probe ladder ──────┴─> Audit: verdict, detection limit, evidence

Association, not harm: a finding says that a feature predicts the label. Lexical silence is no proof of absence, and
the detection limit says how small a shortcut this many pairs could have shown.
"""

from curation.audit.gate import Gates, ShortcutGate, refuses
from curation.audit.whole import Audit, audit

__all__ = ["Audit", "Gates", "ShortcutGate", "audit", "refuses"]
