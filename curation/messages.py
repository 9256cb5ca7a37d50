"""ToMessages: chosen answers become SFT rows, prompt and answer as one conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from curation.schema import MESSAGES, SFT, Message, conform
from curation.stage import Stage


@dataclass(frozen=True)
class ToMessages(Stage):
    """`messages` = prompt + answer; with `include_reasoning` the thinking stands before the answer, between marks."""

    reads: ClassVar = ("prompt_id", "candidate_id", "prompt", "completion")
    writes: ClassVar = tuple(SFT.names)
    replaces: ClassVar = True

    system: str | None = None  # put before each conversation, joined to a system message it has
    include_reasoning: bool = False
    think: tuple[str, str] = ("<think>", "</think>")

    def __call__(self, rows: pa.Table) -> pa.Table:
        reasoning = rows["reasoning"].to_pylist() if "reasoning" in rows.column_names else [None] * rows.num_rows
        parts = zip(rows["prompt"].to_pylist(), rows["completion"].to_pylist(), reasoning, strict=True)
        messages = [self._conversation(prompt, answer, thought) for prompt, answer, thought in parts]
        if "messages" in rows.column_names:
            rows = rows.drop_columns("messages")
        return conform(rows.append_column("messages", pa.array(messages, MESSAGES)), SFT)

    def _conversation(self, prompt: list[Message], answer: str, thought: str | None) -> list[Message]:
        opening, closing = self.think
        text = f"{opening}{thought}{closing}{answer}" if self.include_reasoning and thought else answer
        return [*with_system(prompt, self.system), {"role": "assistant", "content": text}]


def with_system(prompt: Sequence[Message], text: str | None) -> list[Message]:
    """`prompt` behind a system message of `text`. One it has already is joined to it: templates take one alone."""
    if not text:
        return list(prompt)
    if prompt and prompt[0]["role"] == "system":
        return [{"role": "system", "content": f"{text}\n\n{prompt[0]['content']}"}, *prompt[1:]]
    return [{"role": "system", "content": text}, *prompt]
