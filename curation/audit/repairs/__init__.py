"""Repairs of preference pairs, each proven by an audit of what comes out.

    pairs, findings ──method──> Made ──audit, pulls, held-out halves──> Repair: rows, manifest, proof

    canonicalise  both sides of every pair the same normalisation: ends, invisible characters, quotes, bullets
    balance       the fewest pairs dropped until no listed feature pulls
    reweight      weights as near to even as they can be, under which no listed feature pulls
    mismatch      every chosen answer once more, over another prompt's chosen answer
    edit          the feature taken out of the side that has it alone, or copies that speak against it
    rewrite       both sides written anew by one engine
    offset        a margin for the trainer that says what the features say, so that the model need not

Labels are never touched. A feature without counter-examples can be balanced only by giving up every pair that has it:
where that costs most of the set, the set wants other answers, not fewer.
"""

from curation.audit.repairs.methods import METHODS, Method
from curation.audit.repairs.repair import Repair, repair
from curation.audit.repairs.targets import Target, targets_of

__all__ = ["METHODS", "Method", "Repair", "Target", "repair", "targets_of"]
