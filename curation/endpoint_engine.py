"""EndpointEngine: any OpenAI-compatible server (`vllm serve`, SGLang, Ollama, a hosted teacher), asynchronously.

Every sample is a request of its own with its own seed, because servers differ in what they make of n. Retries,
concurrency and waiting are ours (retry.py, limiter.py); what every attempt cost, failed ones included, is kept.
"""

import asyncio
import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from curation.engine import Reply, Request, sample_seed
from curation.errors import EngineError, InputError
from curation.limiter import Limiter
from curation.retry import Trouble, backoff, classify

ATTEMPTS = 3  # of an answer that comes broken
LONGEST_REPLY = 32 * 2**20  # bytes of one HTTP body
FINISH = {"stop": "stop", "length": "length", "content_filter": "content_filter", "tool_calls": "tool_calls"}
FINISH |= {"eos": "stop", "function_call": "tool_calls", "abort": "abort", "repetition": "repetition"}


@dataclass(frozen=True)
class EndpointEngine:
    """A model on a server. With `tokenizer` (a model folder), prompts go as token ids to /completions; else messages
    go to /chat/completions and the server applies its template. The key is read from the environment when used and
    is in no field, message or record."""

    base_url: str  # up to and with /v1
    model: str
    api_key_env: str | None = None  # NAME of the variable
    tokenizer: str | None = None
    concurrency: int = 64  # most requests in flight
    deadline: float = 600.0  # seconds for one request, from first byte to last
    patience: float = 1800.0  # seconds to wait for a server that is down
    first_wait: float = 1.0  # seconds; back-off starts here
    logprobs: bool = False
    prompt_price: float = 0.0  # money per million tokens
    completion_price: float = 0.0
    budget: float | None = None  # money; no request starts beyond it
    extra: str | None = None  # JSON object merged into every request body

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            shown = f"{parts.scheme}://{parts.hostname}"
            raise InputError(
                "endpoint", shown, "http(s)://host[:port]/path, no user or query", "pass keys by --api-key-env"
            )

    def identity(self) -> str:
        parts = urlsplit(self.base_url)
        port = f":{parts.port}" if parts.port else ""
        return f"{self.model}@{parts.hostname}{port}{parts.path.rstrip('/')}"

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
        """Replies one by one as they come. Raises EngineError: key refused, server gone too long, budget spent."""
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = Call(self, results)
        thread = threading.Thread(target=call.run, args=(list(requests),), daemon=True)
        thread.start()
        try:
            while (item := results.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            call.stop()
            thread.join()


class Job(NamedTuple):
    request: Request
    sample: int


class Call:
    """One `answer`: an event loop in a thread of its own."""

    def __init__(self, engine: EndpointEngine, results: "queue.SimpleQueue[Any]") -> None:
        self.engine, self.results = engine, results
        self.key = _key(engine)
        self.limiter = Limiter(engine.concurrency)
        self.rng = random.Random(0)
        self.spent = 0.0
        self.reached = time.monotonic()  # when the server last answered anything
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.stopped, self.unasked = False, 0

    def run(self, requests: list[Request]) -> None:
        """The thread: all jobs, then None; an EngineError takes the place of what could not be done."""
        try:
            asyncio.run(self._all(requests))
        except (EngineError, InputError) as e:
            self.results.put(e)
        except asyncio.CancelledError:
            self.stopped = True
        finally:
            self.results.put(None)

    def stop(self) -> None:
        """Cancel what is in flight (the reader went away)."""
        self.stopped = True
        if self.loop is not None and self.task is not None and not self.loop.is_closed():
            try:
                self.loop.call_soon_threadsafe(self.task.cancel)
            except RuntimeError:  # the loop closed in between
                return

    async def _all(self, requests: list[Request]) -> None:
        httpx = _httpx()
        self.loop, self.task = asyncio.get_running_loop(), asyncio.current_task()
        jobs = iter([Job(r, s) for r in requests for s in r.samples])
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(
            max_connections=self.engine.concurrency, max_keepalive_connections=self.engine.concurrency
        )
        timeout = httpx.Timeout(self.engine.deadline, connect=10.0)
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=timeout, follow_redirects=False) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.engine.concurrency):
                        group.create_task(self._worker(client, jobs))
            except* EngineError as errors:
                raise errors.exceptions[0] from None
        if self.unasked:
            raise EngineError(
                "endpoint", f"{self.spent:.4f} spent", f"a budget of {self.engine.budget}",
                "raise the budget and start again: replies so far are kept",
            )  # fmt: skip

    async def _worker(self, client: Any, jobs: Iterator[Job]) -> None:
        for job in jobs:
            if self.stopped:
                return
            if self._over_budget():
                self.unasked += 1
                return  # and let the requests in flight come home: they are paid for
            self.results.put((job.request, [await self._job(client, job)]))

    def _over_budget(self) -> bool:
        return self.engine.budget is not None and self.spent >= self.engine.budget

    async def _job(self, client: Any, job: Job) -> Reply:
        """One sample, to its end: a reply, or a terminal error."""
        ledger: list[dict[str, Any]] = []
        broken = waits = 0
        while True:
            await self.limiter.enter()
            found: Reply | Trouble = Trouble("transient", "cancelled")
            try:
                found = await self._attempt(client, job, ledger)
            finally:
                await self.limiter.leave(isinstance(found, Reply))
            if isinstance(found, Reply):
                return found._replace(usage=json.dumps(ledger))
            kind, detail = found.kind, self._hide(found.detail)
            if kind == "poison":
                return Reply(job.sample, "", "error", error=f"rejected: {detail}", usage=json.dumps(ledger))
            if kind == "fatal":
                raise EngineError(
                    f"endpoint {self.engine.identity()}", detail, "an answer", "check URL, model name and key"
                )
            if kind == "transient":
                broken += 1
                if broken >= ATTEMPTS:
                    return Reply(job.sample, "", "error", error=f"failed: {detail}", usage=json.dumps(ledger))
            if time.monotonic() - self.reached > self.engine.patience:
                raise EngineError(
                    f"endpoint {self.engine.identity()}", f"{detail}, for {self.engine.patience:.0f} s", "an answer",
                    "start it again: replies so far are kept",
                )  # fmt: skip
            wait = backoff(waits, self.engine.first_wait, self.rng) if found.wait is None else found.wait
            waits += 1
            if kind == "rate":
                self.limiter.refused(wait)
            await asyncio.sleep(wait)

    async def _attempt(self, client: Any, job: Job, ledger: list[dict[str, Any]]) -> "Reply | Trouble":
        httpx = _httpx()
        try:
            path, body = request_body(self.engine, job)
        except InputError as e:  # the chat template refused this conversation
            return Trouble("poison", str(e))
        try:
            async with asyncio.timeout(self.engine.deadline):
                async with client.stream("POST", self.engine.base_url.rstrip("/") + path, json=body) as response:
                    data = b""
                    async for piece in response.aiter_bytes():
                        data += piece
                        if len(data) > LONGEST_REPLY:
                            return Trouble("transient", f"a reply of over {LONGEST_REPLY} bytes")
                    status, headers = response.status_code, dict(response.headers)
        except TimeoutError:
            ledger.append({"status": "timeout"})  # the server may have worked, and charged, for it
            return Trouble("transient", f"no whole answer in {self.engine.deadline:g} s")
        except httpx.HTTPError as e:
            ledger.append({"status": type(e).__name__})
            return Trouble("endpoint", type(e).__name__)
        text = data.decode("utf-8", errors="replace")
        if not 200 <= status < 300:
            ledger.append({"status": status})
            trouble = classify(status, headers, text)
            if trouble.kind not in ("endpoint", "rate"):
                self.reached = time.monotonic()
            return trouble
        self.reached = time.monotonic()
        return self._read(job, text, ledger)

    def _read(self, job: Job, text: str, ledger: list[dict[str, Any]]) -> "Reply | Trouble":
        """A 2xx body as a reply; whatever is wrong with it is this answer's trouble."""
        paid = {"status": 200, "prompt": 0, "completion": 0, "cost": 0.0, "usage": False}
        ledger.append(paid)
        try:
            body = json.loads(text)
            usage = body.get("usage") or {}
            prompt, completion = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            cost = (prompt * self.engine.prompt_price + completion * self.engine.completion_price) / 1e6
            self.spent += cost
            paid |= {"prompt": prompt, "completion": completion, "cost": cost, "usage": bool(usage)}
            return parse_choice(body["choices"][0], job.sample, completion)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as e:
            return Trouble("transient", f"an answer that cannot be read ({type(e).__name__})")

    def _hide(self, text: str) -> str:
        """Servers quote keys in their errors."""
        return text.replace(self.key, "***") if self.key else text


def request_body(engine: EndpointEngine, job: Job) -> tuple[str, dict[str, Any]]:
    """Path and JSON body of one sample. Sampling settings are always stated."""
    sampling = job.request.sampling
    body: dict[str, Any] = {
        "model": engine.model, "temperature": sampling.temperature, "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens, "seed": sample_seed(sampling.seed, job.request.prompt_id, job.sample), "n": 1,
    }  # fmt: skip
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.top_k > 0:
        body["top_k"] = sampling.top_k
    body |= json.loads(engine.extra) if engine.extra else {}
    if engine.tokenizer is not None:
        from curation.chat import encode_chat

        ids = encode_chat(
            _tokenizer(engine.tokenizer), job.request.messages, job.request.tools, add_generation_prompt=True
        )
        return "/completions", body | {"prompt": ids} | ({"logprobs": 1} if engine.logprobs else {})
    body["messages"] = [dict(m) for m in job.request.messages]
    if job.request.tools:
        body["tools"] = json.loads(job.request.tools)
    return "/chat/completions", body | ({"logprobs": True} if engine.logprobs else {})


def parse_choice(choice: dict[str, Any], sample: int, tokens: int) -> Reply:
    """One choice of a chat or completions answer. Raises KeyError, TypeError, ValueError for one that is broken."""
    finish = FINISH.get(choice["finish_reason"])
    if finish is None:
        raise ValueError("unknown finish_reason")
    message = choice.get("message")
    listed = choice.get("logprobs") or {}
    if message is None:
        text, reasoning, values = choice["text"], None, listed.get("token_logprobs")
    else:
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        text = message.get("content") or ""
        if message.get("tool_calls"):
            text = text or json.dumps(message["tool_calls"], ensure_ascii=False)
        values = [t["logprob"] for t in listed["content"]] if listed.get("content") else None
    if not isinstance(text, str) or not isinstance(reasoning, str | None):
        raise TypeError("an answer that is no text")
    text.encode("utf-8")  # a lone surrogate raises here, as a ValueError, and not when the shard is written
    logprob = float(sum(v for v in values if v is not None)) if values else None
    return Reply(sample, text, finish, tokens, logprob, reasoning)


def _key(engine: EndpointEngine) -> str | None:
    if engine.api_key_env is None:
        return None
    key = os.environ.get(engine.api_key_env)
    if not key:
        raise EngineError(
            "endpoint", f"no variable {engine.api_key_env}", "the key in it", f"export {engine.api_key_env}=…"
        )
    return key


def _httpx() -> Any:
    try:
        import httpx
    except ImportError as e:
        raise EngineError("endpoint", "no httpx", "httpx", "pip install 'thresher[endpoint]'") from e
    return httpx


@lru_cache(maxsize=4)
def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
