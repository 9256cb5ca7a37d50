"""Both sides written anew by one engine, so that they share a hand. Nothing is guaranteed but what the audit then finds.

One side alone rewritten would plant the writer's own fingerprint: a reply that fails its checks keeps both originals.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from rapidfuzz import fuzz

from curation.audit.repairs.pairs import Made, Pairs, texts_of, with_texts
from curation.audit.repairs.targets import Target
from curation.engine import Engine, Reply, Request, Sampling
from curation.errors import InputError
from curation.pairs import WHOLE
from curation.schema import Message

ASK = (
    "Rewrite the answer below in plain words of your own. Keep every fact, every step, its language and its length; add "
    "nothing and leave nothing out. Give the rewritten answer alone.\n\nQuestion:\n{prompt}\n\nAnswer:\n{answer}"
)
KIND = "rewritten"
AT_ONCE = 2048  # requests
WORDS = 3  # below so many words a text is too short for a share of its length


@dataclass(frozen=True)
class Rewrite:
    """Both sides of every pair through `engine`. A pair that was rewritten before stays as it is."""

    engine: Engine
    tolerance: float = 0.01
    template: str = ASK
    length: float = 0.10  # share by which a side may become longer or shorter, in characters
    similarity: float = 0.5  # of the old and the new text's sets of words, from 0 to 1, at the least
    max_tokens: int = 2048
    name = "rewrite"
    by_targets = False

    def __post_init__(self) -> None:
        if "{answer}" not in self.template:
            raise InputError("rewrite", "a template without {answer}", "{answer} and, if wanted, {prompt}", "mend it")

    def __call__(self, pairs: Pairs, targets: Sequence[Target], workers: int = 1) -> Made:
        sides, kinds = texts_of(pairs.rows), pairs.rows["kind"].to_pylist()
        fresh = [i for i, kind in enumerate(kinds) if kind != KIND]
        replies = self._replies(pairs, sides, fresh)
        texts: dict[int, tuple[str, str]] = {}
        reasons: dict[str, int] = {}
        for i in fresh:
            found = [replies.get((i, s)) for s in range(2)]
            wrong = next(
                (w for w in (self.refusal(sides[s][i], r) for s, r in enumerate(found)) if w is not None), None
            )
            new = tuple(r.text.strip() if r else "" for r in found)
            wrong = wrong or ("no_difference" if new[0] == new[1] else None)
            if wrong:
                reasons[wrong] = reasons.get(wrong, 0) + 1
            else:
                texts[i] = (new[0], new[1])
        listed = ", ".join(f"{n:,} {reason}" for reason, n in sorted(reasons.items(), key=lambda r: (-r[1], r[0])))
        says = [f"{len(texts):,} of {len(fresh):,} pairs rewritten on both sides"]
        says += [f"kept as they were: {listed}"] if listed else []
        rows = with_texts(pairs.rows, texts)
        if texts:
            at = rows.column_names.index("kind")
            rows = rows.set_column(
                at, rows.schema.field("kind"), [[KIND if i in texts else k for i, k in enumerate(kinds)]]
            )
        why = {pairs.ids[i]: f"rewritten by {self.engine.identity()}" for i in texts}
        return Made(rows, (), why, {"rewritten": len(texts), "kept_as_is": reasons}, says)

    def refusal(self, old: str, reply: Reply | None) -> str | None:
        """Why a reply cannot stand for a text, or None."""
        if reply is None or reply.error is not None:
            return "engine_failed"
        new = reply.text.strip()
        if reply.finish_reason not in WHOLE:
            return "truncated"
        if not new:
            return "empty"
        if len(old.split()) >= WORDS and abs(len(new) - len(old)) > self.length * len(old):
            return "other_length"
        if fuzz.token_set_ratio(old.lower(), new.lower()) < 100 * self.similarity:
            return "says_something_else"
        return None

    def _replies(
        self, pairs: Pairs, sides: tuple[list[str], list[str]], fresh: Sequence[int]
    ) -> dict[tuple[int, int], Reply]:
        prompts, ids, found = pairs.rows["prompt"].to_pylist(), pairs.ids, {}
        sampling = Sampling(temperature=0.0, max_tokens=self.max_tokens)

        def requests() -> Iterator[tuple[tuple[int, int], Request]]:
            for i in fresh:
                for s in range(2):
                    asked = self._asked(prompts[i], sides[s][i])
                    yield (i, s), Request(f"{ids[i]}:{s}:rewrite", asked, (0,), sampling)

        waiting = requests()
        while batch := {r.prompt_id: (key, r) for key, r in islice(waiting, AT_ONCE)}:
            for request, replies in self.engine.answer([r for _, r in batch.values()]):
                for reply in replies:
                    found[batch[request.prompt_id][0]] = reply
        return found

    def _asked(self, prompt: Sequence[Message], text: str) -> list[Message]:
        """The template with prompt and answer put in as plain text, never read as a template."""
        question = "\n\n".join(m["content"] for m in prompt)
        head, _, tail = self.template.partition("{answer}")
        return [{"role": "user", "content": head.replace("{prompt}", question) + text + tail}]
