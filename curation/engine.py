"""An engine answers prompts. It is a value (a frozen dataclass); weights load and connections open on first use.

    Request(prompt_id, messages, samples=(0, 1, 2)) ──engine.answer──> Reply per sample index, as each finishes

Engines: `TransformersEngine` (in process), `VLLMEngine` (offline vLLM), `EndpointEngine` (any OpenAI-compatible
server). All three take the same requests and, greedy on the same model, give the same rows.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from curation.schema import Message, canonical_json, content_id


@dataclass(frozen=True)
class Sampling:
    """How to sample. Always sent whole: an engine never falls back on a model's own generation config."""

    temperature: float = 1.0  # 0 = greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 = off
    max_tokens: int = 512  # new tokens per sample
    stop: tuple[str, ...] = ()
    seed: int = 0  # the run's seed; a sample's own is sample_seed(seed, prompt_id, index)


class Request(NamedTuple):
    """One prompt and the sample indices wanted of it. Some of a group can be asked again alone."""

    prompt_id: str
    messages: Sequence[Message]
    samples: tuple[int, ...]
    sampling: Sampling
    tools: str | None = None  # JSON list of tool schemas for the chat template

    def key(self, model: str) -> str:
        """Journal key: what is asked, of which model (`engine.identity()`). Sample indices are not part of it."""
        return content_id(model, self.prompt_id, list(self.messages), self.tools, _settings(self.sampling))


class Reply(NamedTuple):
    """One sample. `finish_reason` as in schema.FINISH_REASONS; a failed one has `error` and finish_reason "error"."""

    sample: int
    text: str
    finish_reason: str
    tokens: int = 0
    logprob: float | None = None  # sum over the completion's tokens under the sampling distribution, nats
    reasoning: str | None = None
    error: str | None = None  # terminal status and why: "rejected: prompt too long", "failed: …", "quarantined: …"
    usage: str | None = None  # JSON: tokens and cost of every attempt, failed ones included


class Engine(Protocol):
    def identity(self) -> str:
        """Name and, for local weights, a hash of them: the `model` column and part of every journal key."""
        ...

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
        """Answer all requests, yielding each (or a part of its samples) as soon as it is done, in any order.

        Raises EngineError when no request can be answered (model missing, key refused, budget spent).
        """
        ...


Answer = Callable[[Engine, Sequence[Request]], Iterable[tuple[Request, list[Reply]]]]


def ask(engine: Engine, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
    """The plain `Answer`: straight to the engine. The runner passes one that consults its journal first."""
    return engine.answer(requests)


def sample_seed(seed: int, prompt_id: str, sample: int) -> int:
    """Seed of one sample, 31 bits: a hash of run seed and prompt id, plus the index.

    Plus the index because vLLM gives child i of an n-sample request seed + i; bases are hashes, so that the
    seeds of two prompts do not run into each other. 31 bits because servers differ in what they accept.
    """
    base = int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:4], "big") & 0x3FFFFFFF
    return base + sample


def sampling_json(sampling: Sampling, prompt_id: str, sample: int) -> str:
    """The `sampling` column: settings, sample index and the sample's own seed, as canonical JSON."""
    seed = sample_seed(sampling.seed, prompt_id, sample)
    return f'{{"sample":{sample},"sample_seed":{seed},{_settings(sampling)[1:]}'


@lru_cache(maxsize=64)
def _settings(sampling: Sampling) -> str:
    return canonical_json(asdict(sampling))
