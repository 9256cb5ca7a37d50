"""The shortcut audit: what a preference set would teach besides what it is meant to.

    corpus ─ survey ─ gathered ─ sweep ─> tests ─> findings, evidence, rows ┐
                                └────────> probe ladder, residual curve ────┴─> Audit: verdict, detection limit, evidence

Association, not harm: a finding says that a feature predicts the label. Lexical silence is no proof of absence, and
the detection limit says how small a shortcut this many pairs could have shown. Names load when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curation.audit.gate import ShortcutGate
    from curation.audit.verdict import Gates, refuses
    from curation.audit.whole import Audit, audit

_WHERE = {"Audit": "whole", "Gates": "verdict", "ShortcutGate": "gate", "audit": "whole", "refuses": "verdict"}
__all__ = ["Audit", "Gates", "ShortcutGate", "audit", "refuses"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'curation.audit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"curation.audit.{_WHERE[name]}"), name)
