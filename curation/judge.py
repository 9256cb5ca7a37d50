"""JudgePairs: a language model decides which side of a pair is better, asked in both orders.

A judge that prefers a place rather than an answer contradicts itself when the order is turned: such a pair leaves, with
what was said, and so does one without a clear word (Zheng et al. 2023, arXiv 2306.05685).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from curation.engine import Answer, Engine, Request, Sampling, ask
from curation.schema import DPO, pair_id
from curation.stage import Outcome, Stage, drops

Word = Literal["first", "second", "tie"]
ORDERS = ("ab", "ba")
RUBRIC = (
    "You compare two answers to a question. Judge whether each is right, does what was asked and is clear. Length, order "
    "and confident manner count for nothing. End with one line: `Better: A`, `Better: B` or `Better: tie`."
)


@dataclass(frozen=True)
class JudgePairs(Stage):
    """Ask `engine` about every pair, once in each order; keep those it is sure of, the better side as chosen.

    `judged_from` is the pair as it came. Scores become 1 and 0, `kind` gains "+judge". A judge that wrote one of the two
    answers is not asked unless `may_judge_itself`.
    """

    reads: ClassVar = ("pair_id", "prompt_id", "prompt", "chosen", "rejected")
    writes: ClassVar = ("judged_from",)
    key: ClassVar = "pair_id"
    carries: ClassVar = ("judged_from",)

    engine: Engine
    rubric: str = RUBRIC
    max_tokens: int = 512
    temperature: float = 0.0
    may_judge_itself: bool = False
    seed: int = 0

    @property
    def asks(self) -> bool:
        return True

    def __call__(self, rows: pa.Table, answer: Answer = ask) -> Outcome:
        pairs, own = rows.to_pylist(), self.engine.identity()
        mine = [own in (p.get("chosen_model"), p.get("rejected_model")) and not self.may_judge_itself for p in pairs]
        gone = [(p["pair_id"], "judges_itself", own) for p, is_mine in zip(pairs, mine, strict=True) if is_mine]
        asked = [p for p, is_mine in zip(pairs, mine, strict=True) if not is_mine]
        said = self._said(asked, answer)
        kept = []
        for pair in asked:
            words = [verdict(said.get(f"{pair['pair_id']}:{order}", "")) for order in ORDERS]
            reason = _reason(words)
            if reason:
                gone.append((pair["pair_id"], reason, f"{words[0]} then {words[1]}"))
            else:
                kept.append(_judged(pair, chosen_wins=words[0] == "first"))
        schema = pa.schema([f for f in rows.schema if f.name != "judged_from"]).append(
            pa.field("judged_from", pa.string())
        )
        return Outcome(pa.Table.from_pylist(kept, schema=schema), drops(gone))

    def _said(self, pairs: Sequence[Mapping[str, Any]], answer: Answer) -> dict[str, str]:
        """What the judge said, by pair and order."""
        sampling = Sampling(temperature=self.temperature, max_tokens=self.max_tokens, seed=self.seed)
        requests = [Request(f"{p['pair_id']}:{o}", self._asked(p, o), (0,), sampling) for p in pairs for o in ORDERS]
        replies = answer(self.engine, requests)
        return {request.prompt_id: r.text for request, found in replies for r in found if r.error is None}

    def _asked(self, pair: Mapping[str, Any], order: str) -> list[dict[str, str]]:
        sides = ("chosen", "rejected") if order == "ab" else ("rejected", "chosen")
        first, second = (pair[s][-1]["content"] for s in sides)
        prompt = "\n\n".join(f"{m['role']}: {m['content']}" for m in pair["prompt"])
        text = f"{self.rubric}\n\n[Question]\n{prompt}\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}\n\n[End]"
        return [{"role": "user", "content": text}]


def verdict(text: str) -> Word | None:
    """The judge's last "Better: A|B|tie"; None where it said nothing of the kind. A bare "A" counts too."""
    found = re.findall(r"better:\s*\**\[?(A|B|tie)\b", text, re.IGNORECASE) or re.findall(
        r"\A\s*\[?(A|B|tie)\]?\W*\Z", text
    )
    words: dict[str, Word] = {"a": "first", "b": "second", "tie": "tie"}
    return words[found[-1].lower()] if found else None


def _reason(words: Sequence[Word | None]) -> str | None:
    if None in words:
        return "no_verdict"
    if words == ["tie", "tie"]:
        return "tie"
    return None if set(words) == {"first", "second"} else "judge_disagrees"


def _judged(pair: Mapping[str, Any], chosen_wins: bool) -> dict[str, Any]:
    """The pair with the winner as chosen. Reference columns follow their side."""
    turned = {}
    for name, value in pair.items():
        other = name.replace("chosen", "*").replace("rejected", "chosen").replace("*", "rejected")
        turned[name if chosen_wins else other] = value
    known = {n: turned[n] for n in DPO.names if n in turned}
    ids = (str(turned.get("chosen_id")), str(turned.get("rejected_id")))
    kind = str(pair.get("kind") or "imported")
    return {
        **turned, **known, "pair_id": pair["pair_id"] if chosen_wins else pair_id(pair["prompt_id"], *ids),
        "chosen_score": 1.0, "rejected_score": 0.0, "margin": 1.0, "judged_from": pair["pair_id"],
        "kind": kind if kind.endswith("+judge") else f"{kind}+judge",
    }  # fmt: skip
