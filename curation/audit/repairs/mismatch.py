"""Mismatch augmentation (RRM, Liu et al. 2024, arXiv 2409.13156): what does not depend on the prompt shall not win.

To every pair (x_i: chosen_i > rejected_i) comes (x_i: chosen_i > chosen_j) of another prompt. The j are a permutation,
so that every chosen answer stands once on each side of the additions: whatever an answer has whatever its prompt cancels
there exactly, and the pull of the set falls from p to p · N / (N + m). What is taught anew is to answer the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.audit.repairs.pairs import Made, Pairs, derived, new_rows, texts_of
from curation.audit.repairs.targets import Target
from curation.errors import InputError

KIND = "mismatch"


@dataclass(frozen=True)
class Mismatch:
    """Every chosen answer once more, over the chosen answer of another prompt."""

    tolerance: float = 0.01
    name = "mismatch"
    by_targets = False

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made:
        rows, kinds = pairs.rows, pairs.rows["kind"].to_pylist()
        order = [int(r) for r in pairs.corpus.rows if kinds[int(r)] != KIND]
        prompts = rows["prompt_id"].to_pylist()
        other = deranged([prompts[r] for r in order])
        answers, _ = texts_of(rows)
        there, listed, made, same = set(pairs.ids), rows.to_pylist(), {}, 0
        for i, j in zip(order, (order[k] for k in other), strict=True):
            if answers[i] == answers[j]:
                same += 1
                continue
            row = {**derived(listed[i], answers[i], answers[j], KIND), "rejected_model": listed[j]["chosen_model"]}
            row |= {"chosen_id": listed[i]["chosen_id"], "chosen_score": listed[i]["chosen_score"]}
            made[row["pair_id"]] = row
        shrinks = len(order) / max(1, len(order) + len(made))
        says = [f"every pull of a text shrinks to {shrinks:.1%} of what it was: N / (N + m)"]
        says += [f"{same:,} pairs had nothing added: their counterpart is the same answer"] if same else []
        fresh = [row for name, row in made.items() if name not in there]
        notes = {"added": len(fresh), "same_answer": same, "shrinks_to": shrinks}
        return Made(pa.concat_tables([rows, new_rows(fresh, rows.schema)]), notes=notes, says=says)


def deranged(prompts: Sequence[str]) -> np.ndarray:
    """A permutation that gives every pair one of another prompt. Pairs of a prompt stand together, in an order that
    content alone decides. Raises InputError where one prompt has more than half of the pairs."""
    n = len(prompts)
    starts = [i for i in range(n) if i == 0 or prompts[i] != prompts[i - 1]]
    largest = int(np.diff([*starts, n]).max(initial=0))
    if 2 * largest > n:
        raise InputError(
            KIND,
            f"{largest} of {n} pairs are of one prompt",
            "answers to other prompts for every pair",
            "balance instead",
        )
    # Moved on by the largest prompt's size, no pair can land in its own prompt.
    return (np.arange(n) + largest) % max(1, n)
