"""The project's fakes, in one place: engines that answer at once, and models small enough to be made in a test."""

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curation.engine import Reply, Request
from curation.schema import PROMPTS, SCORED, candidate_id, prompt_id
from curation.stage import Outcome


def echo(request: Request, sample: int) -> Reply:
    """Even samples answer right ("2*i"), odd ones wrong."""
    number = int(request.messages[-1]["content"].split()[-1])
    return Reply(sample, str(2 * number + sample % 2), "stop", 2, -0.5)


@dataclass(frozen=True)
class Slow:
    """A script that takes `seconds` for each sample."""

    seconds: float

    def __call__(self, request: Request, sample: int) -> Reply:
        time.sleep(self.seconds)
        return echo(request, sample)


@dataclass(frozen=True)
class Flaky:
    """A script that fails on "double i" for every i that `every` divides, as a server does that is overloaded."""

    every: int

    def __call__(self, request: Request, sample: int) -> Reply:
        number = int(request.messages[-1]["content"].split()[-1])
        failed = Reply(sample, "", "error", error="failed: 503 overloaded")
        return failed if number % self.every == 0 else echo(request, sample)


@dataclass(frozen=True)
class FakeEngine:
    """Answers at once by `script`; with `log`, writes every sample it is asked for to a file."""

    script: Callable[[Request, int], Reply] = echo
    log: str | None = None
    name: str = "fake@1"

    def identity(self) -> str:
        return self.name

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
        for request in requests:
            if self.log is not None:
                with open(self.log, "a") as file:
                    file.write("".join(f"{request.prompt_id} {s}\n" for s in request.samples))
            yield request, [self.script(request, s) for s in request.samples]


def prompts(n: int) -> Outcome:
    """`n` prompts "double i", truth 2*i."""
    rows = []
    for i in range(n):
        messages = [{"role": "user", "content": f"double {i}"}]
        rows.append(
            {"prompt_id": prompt_id(messages, str(2 * i)), "prompt": messages, "source": "fake", "task": "double",
             "ground_truth": str(2 * i)}
        )  # fmt: skip
    return Outcome(pa.Table.from_pylist(rows, schema=PROMPTS))


@functools.cache
def tiny_model() -> Path:
    """A toy base trained for a few seconds: its top token leads clearly, so that two engines agree on it."""
    from pipelines.toy import ToyRecipe, make_toy_world

    home = Path(tempfile.mkdtemp(prefix="thresher-tiny-")) / "world"
    make_toy_world(ToyRecipe(base_steps=60, teacher_steps=2, batch=64), home)
    return home / "base"


@functools.cache
def random_model(layers: int = 2, kv_heads: int = 2, hidden: int = 64) -> Path:
    """A random-weight toy-shaped model with grouped key-value heads; made in a moment."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipelines.toy_tokenizer import toy_tokenizer

    home = Path(tempfile.mkdtemp(prefix="thresher-random-"))
    tokenizer = toy_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=hidden * 3 // 2, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=kv_heads, max_position_embeddings=256, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(home)
    tokenizer.save_pretrained(home)
    return home


def scored_rows(answers: Sequence[tuple[str, float, str, str]], model: str = "policy@1") -> pa.Table:
    """Rows of schema.SCORED from (prompt, score, finish_reason, completion)."""
    rows = []
    for i, (prompt, score, finish, text) in enumerate(answers):
        messages = [{"role": "user", "content": prompt}]
        pid = prompt_id(messages)
        rows.append(
            {"prompt_id": pid, "prompt": messages, "candidate_id": candidate_id(pid, model, "policy", str(i), text),
             "completion": text, "finish_reason": finish, "origin": "policy", "model": model, "score": score}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCORED)


@dataclass(frozen=True)
class Says:
    """A script that answers by the first key found in the request's last message."""

    by_key: tuple[tuple[str, str], ...]

    def __call__(self, request: Request, sample: int) -> Reply:
        asked = request.messages[-1]["content"]
        return Reply(sample, next((text for key, text in self.by_key if key in asked), ""), "stop", 1)


def train_on_two_ranks(*words: str) -> None:
    """`thresher train …` under torchrun, two processes on this machine."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pipelines.cli", "train"]
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, *launch, *words], cwd=root, check=True, capture_output=True, timeout=240)
