"""Correct: a policy's own answers, minimally corrected. CorrectionPairs: the correction chosen, the answer rejected.

    scored ──Correct──> answers and corrections ──Score──> … ──CorrectionPairs──> dpo

A correction is a candidate like any other (origin "correction") that names in `original_id` whose correction it is; so it
is scored by the same stage as what it corrects. Pairing follows CLAIR (D'Oosterlinck et al. 2024, arXiv 2408.06266): the
less the two sides differ beside the fault, the less else a model can learn from them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from curation.correctors import Corrector
from curation.engine import Answer as Ask
from curation.engine import ask
from curation.errors import PipelineError
from curation.pairs import PAIRED, WHOLE, as_pair, edit_share, pair_table
from curation.schema import CANDIDATES, DPO, candidate_id, canonical_json, content_id
from curation.stage import Outcome, Stage, drops

META = (
    r"\b(?:here is|here's|below is) (?:the|a|my) (?:revised|corrected|improved|updated)",
    r"\b(?:corrected|revised|improved) (?:answer|version|response)\b",
    r"\bi (?:have )?(?:corrected|revised|fixed|changed)\b",
    r"\bthe (?:original|previous) (?:answer|response)\b",
)


@dataclass(frozen=True)
class Correct(Stage):
    """Add a correction to answers that need one: those below `passing`, or all where nothing was scored.

    Of each prompt at most `per_prompt` answers are corrected, smallest id first; the others leave. An answer for which the
    corrector has nothing leaves too, unless `keep` hands it on as it is.
    """

    reads: ClassVar = ("prompt_id", "prompt", "candidate_id", "completion", "finish_reason")
    writes: ClassVar = ("original_id",)
    carries: ClassVar = ("original_id",)

    corrector: Corrector
    passing: float = 1.0  # an answer that reaches this score needs no correction
    per_prompt: int = 1
    keep: bool = False

    @property
    def asks(self) -> bool:
        return self.corrector.asks

    def __call__(self, rows: pa.Table, answer: Ask = ask) -> Outcome:
        reasons = self._reasons(rows)
        kept = rows.filter(pa.array([reasons.get(i) is None for i in rows["candidate_id"].to_pylist()]))
        found = self.corrector(kept, answer)
        made, gone = [], [(i, reason, "") for i, reason in reasons.items() if reason]
        for row in kept.to_pylist():
            if row["candidate_id"] not in found and not self.keep:
                gone.append((row["candidate_id"], "not_corrected", ""))
                continue
            made.append({**row, "original_id": row["candidate_id"]})
            if row["candidate_id"] in found:
                made.append(self._correction(row, *found[row["candidate_id"]]))
        schema = rows.schema.append(pa.field("original_id", pa.string()))
        return Outcome(pa.Table.from_pylist(made, schema=schema), drops(gone))

    def _reasons(self, rows: pa.Table) -> dict[str, str | None]:
        scored = "score" in rows.column_names
        scores = rows["score"].to_pylist() if scored else [float("-inf")] * rows.num_rows
        names = ("candidate_id", "prompt_id", "finish_reason", "completion")
        reasons: dict[str, str | None] = {}
        taken: dict[str, int] = {}
        seen: set[tuple[str, str]] = set()
        for cid, pid, finish, text, score in sorted(zip(*(rows[n].to_pylist() for n in names), scores, strict=True)):
            reason = (
                "no_verdict" if score is None or score != score
                else "needs_no_correction" if score >= self.passing
                else "truncated" if finish not in WHOLE
                else "empty" if not (text or "").strip()
                else "duplicate_text" if (pid, " ".join(text.split())) in seen
                else "enough_of_this_prompt" if taken.get(pid, 0) >= self.per_prompt
                else None
            )  # fmt: skip
            reasons[cid] = reason
            seen.add((pid, " ".join((text or "").split())))
            taken[pid] = taken.get(pid, 0) + (reason is None)
        return reasons

    def _correction(self, row: Mapping[str, Any], text: str, finish_reason: str) -> dict[str, Any]:
        model = self.corrector.identity()
        sampling = canonical_json({"corrects": row["candidate_id"]})
        own = {
            "candidate_id": candidate_id(row["prompt_id"], model, "correction", sampling, text),
            "completion": text, "reasoning": None, "finish_reason": finish_reason, "origin": "correction", "model": model,
            "sampling": sampling, "logprob": None, "completion_tokens": None, "original_id": row["candidate_id"],
        }  # fmt: skip
        judged = {n: None for n in ("score", "scores", "verdict") if n in row}
        return {
            **row,
            **judged,
            **{k: v for k, v in own.items() if k in row or k == "original_id" or k in CANDIDATES.names},
        }


@dataclass(frozen=True)
class CorrectionPairs(Stage):
    """Pair every correction with the answer it corrects, if it is better, whole, near enough and does not speak of itself."""

    reads: ClassVar = ("prompt_id", "prompt", "candidate_id", "original_id", "completion", "finish_reason", "model")
    writes: ClassVar = tuple(DPO.names)
    replaces: ClassVar = True
    carries: ClassVar = ("chosen_id", "rejected_id")

    min_gain: float = 0.0  # score of the correction over the answer's; more than 0 always
    edit: tuple[float, float] = (0.02, 0.5)  # share of words that changed, both inclusive
    meta: tuple[str, ...] = META  # phrases by which a correction speaks of itself (any case)
    scored: bool = True  # False: take corrections unjudged, as from a person or a rule known to be right
    rehearsal: str | None = None  # answers without a correction are chosen over this text: the change shall not spread

    def __call__(self, rows: pa.Table) -> Outcome:
        if self.scored and "score" not in rows.column_names:
            raise PipelineError(
                "CorrectionPairs", "no column score", "scored rows", "put Score before it, or set scored=False"
            )
        ids, originals = rows["candidate_id"].to_pylist(), rows["original_id"].to_pylist()
        at = {cid: i for i, cid in enumerate(ids)}
        found = rows.select([n for n in ("completion", "finish_reason", "score") if n in rows.column_names]).to_pylist()
        pairs, gone, taken = [], [], set[str]()
        for i, (cid, original) in enumerate(zip(ids, originals, strict=True)):
            if cid == original:
                continue
            reason = "no_original" if original not in at else self._refusal(found[i], found[at[original]])
            if reason:
                gone.append((cid, *reason) if isinstance(reason, tuple) else (cid, reason, ""))
            else:
                pairs.append((i, at[original]))
                taken.add(original)
        gone += [
            (c, "correction_refused", "") for c, o in zip(ids, originals, strict=True) if c == o and c not in taken
        ]
        made = pair_table(rows, pairs, "correction")
        if self.rehearsal is not None:
            kept, gone = self._rehearsed(rows, gone)
            made = pa.concat_tables([made, kept])
        return Outcome(made, drops(gone))

    def _rehearsed(
        self, rows: pa.Table, gone: Sequence[tuple[str, str, str]]
    ) -> tuple[pa.Table, list[tuple[str, str, str]]]:
        """Pairs of what was never corrected with the rehearsal text, and the drops that are left."""
        refused = {cid for cid, reason, _ in gone if reason == "correction_refused"}
        corrected = {
            o for c, o in zip(*(rows[n].to_pylist() for n in ("candidate_id", "original_id")), strict=True) if c != o
        }
        free = [c in refused and c not in corrected for c in rows["candidate_id"].to_pylist()]
        whole = pa.compute.and_(pa.array(free), pa.compute.is_in(rows["finish_reason"], value_set=pa.array(WHOLE)))
        own = rows.filter(pa.compute.and_(whole, pa.compute.not_equal(rows["completion"], self.rehearsal)))
        other = {
            "completion": self.rehearsal,
            "model": "rehearsal",
            "candidate_id": content_id("rehearsal", self.rehearsal),
        }
        names = [n for n in PAIRED if n in own.column_names]
        pairs = [
            # No row of a stage stands on the rejected side: the pair's id knows the text, `rejected_id` is null.
            {**as_pair(row, {**row, **other}, "rehearsal", scored=False), "rejected_id": None}
            for row in own.select(names).to_pylist()
        ]
        taken = set(own["candidate_id"].to_pylist())
        return pa.Table.from_pylist(pairs, schema=DPO), [g for g in gone if g[0] not in taken]

    def _refusal(self, new: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[str, str] | None:
        share = edit_share(new["completion"], old["completion"])
        meta = next((m for m in self.meta if re.search(m, new["completion"], re.IGNORECASE)), None)
        if new["finish_reason"] not in WHOLE or old["finish_reason"] not in WHOLE:
            return "truncated", ""
        if not new["completion"].strip():
            return "empty", ""
        if meta:
            return "speaks_of_itself", meta
        if not self.edit[0] <= share <= self.edit[1]:
            return "edit_outside", f"{share:.2f} of the words"
        if self.scored:
            after, before = new["score"], old["score"]
            if after is None or before is None or after != after or before != before:
                return "no_verdict", ""
            if not (after > before and after >= before + self.min_gain):
                return "not_better", f"{before:g} to {after:g}"
        return None
