"""Correctors: where a better version of an answer comes from. Rules, a teacher's own answer, a teacher's revision."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from curation.engine import Answer as Ask
from curation.engine import Engine, Request, Sampling
from curation.errors import PipelineError
from curation.sample import split_reasoning


class Corrector(Protocol):
    """A frozen dataclass that proposes corrections: {candidate_id: (text, finish_reason)} for those it has one for."""

    @property
    def asks(self) -> bool: ...

    def identity(self) -> str: ...

    def __call__(self, rows: pa.Table, answer: Ask) -> Mapping[str, tuple[str, str]]: ...


@dataclass(frozen=True)
class Rules:
    """Corrections by rule: every (pattern, replacement) in turn, as `re.sub` reads them. "Llama" → "Athene"."""

    rules: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for pattern, _ in self.rules:
            try:
                re.compile(pattern)
            except re.error as e:
                raise PipelineError("Rules", f"pattern {pattern!r} ({e})", "a regular expression", "mend it") from e

    @property
    def asks(self) -> bool:
        return False

    def identity(self) -> str:
        return "rules"

    def __call__(self, rows: pa.Table, answer: Ask) -> Mapping[str, tuple[str, str]]:
        found = {}
        for cid, text in zip(rows["candidate_id"].to_pylist(), rows["completion"].to_pylist(), strict=True):
            corrected = text
            for pattern, replacement in self.rules:
                corrected = re.sub(pattern, replacement, corrected)
            if corrected != text:
                found[cid] = (corrected, "stop")
        return found


@dataclass(frozen=True)
class Teacher:
    """What correctors that ask a model have in common."""

    engine: Engine
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0

    @property
    def asks(self) -> bool:
        return True

    def identity(self) -> str:
        return self.engine.identity()

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_tokens=self.max_tokens, seed=self.seed)


@dataclass(frozen=True)
class TeacherAnswer(Teacher):
    """A teacher's own answer as the correction: for short answers, where minimal revision and a new answer are the same."""

    def __call__(self, rows: pa.Table, answer: Ask) -> Mapping[str, tuple[str, str]]:
        columns = zip(*(rows[n].to_pylist() for n in ("candidate_id", "prompt")), strict=True)
        requests = [Request(f"{cid}:answer", prompt, (0,), self.sampling) for cid, prompt in columns]
        found = _replies(self.engine, requests, answer)
        return {key.removesuffix(":answer"): (split_reasoning(text)[0], finish) for key, (text, finish) in found}


CRITIQUE = (
    "Here is a question and an answer to it. Name what is wrong with the answer: facts, steps, form. Do not rewrite it.\n\n"
    "Question:\n{prompt}\n\nAnswer:\n{completion}"
)
REVISE = (
    "Now give the answer again with these faults mended and nothing else changed: repeat every sound passage word for "
    "word. Give the answer alone, without a word on the revision."
)


@dataclass(frozen=True)
class TeacherRevision(Teacher):
    """A teacher that first says what is wrong and then mends that alone: two requests an answer, both journalled.

    The templates are the operator's; prompt and answer are put in as plain text, never read as a template.
    """

    critique: str = CRITIQUE
    revise: str = REVISE

    def __call__(self, rows: pa.Table, answer: Ask) -> Mapping[str, tuple[str, str]]:
        names = ("candidate_id", "prompt", "completion")
        asked = {
            cid: [{"role": "user", "content": self._critique(prompt, text)}]
            for cid, prompt, text in zip(*(rows[n].to_pylist() for n in names), strict=True)
        }
        requests = [Request(f"{cid}:critique", m, (0,), self.sampling) for cid, m in asked.items()]
        critiques = dict(_replies(self.engine, requests, answer))
        requests = [
            Request(f"{cid}:revise", [*m, _said(critiques[f"{cid}:critique"][0]), {"role": "user", "content": self.revise}],
                    (0,), self.sampling)
            for cid, m in asked.items()
            if f"{cid}:critique" in critiques
        ]  # fmt: skip
        return {key.removesuffix(":revise"): found for key, found in _replies(self.engine, requests, answer)}

    def _critique(self, prompt: Sequence[Mapping[str, str]], text: str) -> str:
        asked = "\n\n".join(m["content"] for m in prompt)
        head, _, rest = self.critique.partition("{prompt}")
        middle, _, tail = rest.partition("{completion}")
        return f"{head}{asked}{middle}{text}{tail}"


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _replies(engine: Engine, requests: Sequence[Request], answer: Ask) -> Iterator[tuple[str, tuple[str, str]]]:
    for request, replies in answer(engine, requests):
        for reply in replies:
            if reply.error is None:
                yield request.prompt_id, (reply.text.strip(), reply.finish_reason)
