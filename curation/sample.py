"""Sample: K answers per prompt. One class serves distillation (a teacher, K = 1), best-of-K and on-policy data.

The teacher may see more than its student will: `hidden_system`, or with `hidden_tools` the prompt's tool
descriptions, go into the request and are left out of the rows.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from curation.engine import Answer, Engine, Reply, Request, Sampling, ask, sampling_json
from curation.errors import PipelineError
from curation.messages import with_system
from curation.schema import CANDIDATES, ORIGINS, PROMPTS, Message, candidate_id
from curation.stage import Outcome, Stage, drops


@dataclass(frozen=True)
class Sample(Stage):
    """Ask `engine` for `k` answers to every prompt. A prompt that got none leaves with the engine's reason."""

    reads: ClassVar = ("prompt_id", "prompt")
    writes: ClassVar = tuple(name for name in CANDIDATES.names if name not in PROMPTS.names)
    key: ClassVar = "prompt_id"
    carries: ClassVar = ("prompt_id",)

    engine: Engine
    k: int = 1
    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 = off
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: int = 0
    origin: str = "policy"
    hidden_system: str | None = None  # a system prompt the rows leave out
    hidden_tools: bool = False  # leave the tool descriptions out of the rows
    think: tuple[str, str] = ("<think>", "</think>")  # marks of reasoning, split off the answer

    def __post_init__(self) -> None:
        if self.k < 1 or self.max_tokens < 1 or self.temperature < 0 or self.origin not in ORIGINS:
            raise PipelineError(
                "Sample", f"k={self.k} max_tokens={self.max_tokens} temperature={self.temperature} origin={self.origin!r}",
                f"k and max_tokens ≥ 1, temperature ≥ 0, origin of {', '.join(ORIGINS)}", "correct the setting",
            )  # fmt: skip

    @property
    def asks(self) -> bool:
        return True

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens, self.stop, self.seed)

    def __call__(self, rows: pa.Table, answer: Answer = ask) -> Outcome:
        columns = rows.select([c for c in PROMPTS.names if c in rows.column_names])
        ids, prompts = columns["prompt_id"].to_pylist(), columns["prompt"].to_pylist()
        tools = columns["tools"].to_pylist() if "tools" in columns.column_names else [None] * len(ids)
        sampling, samples = self.sampling, tuple(range(self.k))
        requests = [
            Request(i, self._messages(p), samples, sampling, t) for i, p, t in zip(ids, prompts, tools, strict=True)
        ]
        replies: dict[str, dict[int, Reply]] = {i: {} for i in ids}
        for request, found in answer(self.engine, requests):
            replies[request.prompt_id].update((r.sample, r) for r in found)
        return self._outcome(columns, ids, replies)

    def _messages(self, prompt: Sequence[Message]) -> Sequence[Message]:
        return with_system(prompt, self.hidden_system)

    def _outcome(self, columns: pa.Table, ids: Sequence[str], replies: Mapping[str, Mapping[int, Reply]]) -> Outcome:
        model, made, at, gone = self.engine.identity(), [], [], []
        failed: Counter[str] = Counter()
        sampling = self.sampling
        for row, prompt_id in enumerate(ids):
            whole = [r for _, r in sorted(replies[prompt_id].items()) if r.error is None]
            for reply in replies[prompt_id].values():
                if reply.error is not None:
                    failed[f"answers {reply.error.split(':')[0]}"] += 1
            if not whole:
                error = next((r.error for r in replies[prompt_id].values() if r.error), "failed: no reply")
                reason, _, detail = error.partition(": ")
                gone.append((prompt_id, reason, detail))
            for reply in whole:
                at.append(row)
                made.append(self._candidate(prompt_id, reply, model, sampling))
        taken = columns.take(pa.array(at, pa.int64()))
        if self.hidden_tools and "tools" in taken.column_names:
            taken = taken.set_column(taken.column_names.index("tools"), "tools", pa.nulls(taken.num_rows, pa.string()))
        made_columns = list(zip(*made, strict=True)) or [()] * len(self.writes)
        for name, values in zip(self.writes, made_columns, strict=True):
            taken = taken.append_column(name, pa.array(values, CANDIDATES.field(name).type))
        tokens = sum(made_columns[self.writes.index("completion_tokens")])
        return Outcome(taken, drops(gone), {**failed, "tokens": tokens})

    def _candidate(self, prompt_id: str, reply: Reply, model: str, settings: Sampling) -> tuple[Any, ...]:
        text, reasoning = reply.text, reply.reasoning
        if reasoning is None:
            text, reasoning = split_reasoning(text, *self.think)
        sampling = sampling_json(settings, prompt_id, reply.sample)
        made = candidate_id(prompt_id, model, self.origin, sampling, text, reasoning)
        return (
            made, text, reasoning, reply.finish_reason, self.origin, model, sampling, reply.logprob, reply.tokens,
        )  # fmt: skip


def split_reasoning(text: str, opening: str = "<think>", closing: str = "</think>") -> tuple[str, str | None]:
    """("<think>a</think>b") → ("b", "a"). The opening mark may stand in the prompt; unclosed thinking has no answer."""
    head, found, answer = text.rpartition(closing)
    if found:
        return re.sub(r"\A\s*\n", "", answer), head.removeprefix(opening)
    if opening and text.lstrip().startswith(opening):
        return "", text.lstrip().removeprefix(opening)
    return text, None
