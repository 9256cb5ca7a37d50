"""The endpoint engine against a scripted server: every request ends in exactly one way, and nothing is paid twice."""

import email.utils
import json
import random
import time
from collections import Counter

import pytest

from curation.endpoint_engine import EndpointEngine
from curation.engine import Request, Sampling, sample_seed
from curation.errors import EngineError, InputError
from tests.openai_server import Server, completion


def ask(server: Server, n: int = 4, k: int = 1, **settings: object):
    engine = EndpointEngine(server.url, "m", **{"first_wait": 0.001, "deadline": 5.0, "patience": 5.0, **settings})
    requests = [
        Request(
            f"p{i}", [{"role": "user", "content": f"question {i}"}], tuple(range(k)), Sampling(max_tokens=8, seed=3)
        )
        for i in range(n)
    ]
    return [(r.prompt_id, reply) for r, replies in engine.answer(requests) for reply in replies]


def test_every_sample_is_asked_once_with_its_own_seed_and_all_settings():
    with Server(lambda i, body: {"body": completion(body["messages"][0]["content"])}) as server:
        got = ask(server, n=5, k=3)
    assert Counter((p, r.sample) for p, r in got) == Counter((f"p{i}", s) for i in range(5) for s in range(3))
    assert all(r.text == f"question {p[1:]}" and r.finish_reason == "stop" and r.tokens == 5 for p, r in got)
    seeds = {(b["messages"][0]["content"], b["seed"]) for b in server.seen}
    assert seeds == {(f"question {i}", sample_seed(3, f"p{i}", s)) for i in range(5) for s in range(3)}
    assert all({"temperature", "top_p", "max_tokens", "model"} <= set(b) for b in server.seen)


def test_reasoning_and_finish_reason_are_kept_apart_from_the_answer():
    with Server(lambda i, b: {"body": completion("12", finish="length", reasoning_content="7+5")}) as server:
        (_, reply), *_ = ask(server, n=1)
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("12", "7+5", "length")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_poison_prompt_is_never_asked_again(status: int):
    with Server(lambda i, b: {"status": status, "body": {"error": "too long"}}) as server:
        (_, reply), *_ = ask(server, n=1)
    assert reply.error and reply.error.startswith("rejected") and len(server.seen) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_fatal_answer_stops_the_stage(status: int):
    with Server(lambda i, b: {"status": status}) as server, pytest.raises(EngineError):
        ask(server, n=50, concurrency=4)
    assert len(server.seen) < 50


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 500}, {"raw": b"not json"}, {"body": {"choices": []}}, {"raw": b"[" * 100000},
        {"body": {"choices": [{"message": {"content": 3}, "finish_reason": "stop"}]}},
        {"raw": b'{"choices":[{"message":{"content":"\\ud800"},"finish_reason":"stop"}]}'},
    ],
)  # fmt: skip
def test_a_broken_answer_is_tried_three_times_and_then_marked(trouble: dict):
    with Server(lambda i, b: trouble) as server:
        (_, reply), *_ = ask(server, n=1)
    assert reply.error and reply.error.startswith("failed") and len(server.seen) == 3
    assert len(json.loads(reply.usage)) == 3


@pytest.mark.parametrize("trouble", [{"reset": True}, {"status": 503}, {"cut": True, "body": completion("x" * 100)}])
def test_a_server_that_comes_back_costs_no_attempt(trouble: dict):
    with Server(lambda i, b: trouble if i < 6 else {"body": completion()}) as server:
        (_, reply), *_ = ask(server, n=1)
    assert reply.text == "ok" and len(server.seen) == 7


def test_a_server_that_stays_away_ends_the_run_after_our_patience():
    with Server(lambda i, b: {"status": 503}) as server, pytest.raises(EngineError, match="503"):
        ask(server, n=1, patience=0.2)


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_obeyed(date: bool):
    value = email.utils.formatdate(time.time() + 2, usegmt=True) if date else "0.4"
    with Server(
        lambda i, b: {"status": 429, "headers": {"Retry-After": value}} if i == 0 else {"body": completion()}
    ) as s:
        started = time.monotonic()
        ask(s, n=1)
    assert time.monotonic() - started > (0.8 if date else 0.39)


@pytest.mark.parametrize("trouble", [{"hang": True}, {"trickle": 0.02, "body": completion("x" * 200)}])
def test_a_request_ends_at_its_deadline(trouble: dict):
    with Server(lambda i, b: trouble) as server:
        started = time.monotonic()
        (_, reply), *_ = ask(server, n=1, deadline=0.2)
    assert reply.error and time.monotonic() - started < 3


def test_the_budget_stops_new_requests_and_keeps_the_paid_ones():
    got = []
    with Server(lambda i, b: {"body": completion()}) as server:
        engine = EndpointEngine(server.url, "m", prompt_price=1e5, budget=3.0, concurrency=2)
        requests = [Request(f"p{i}", [{"role": "user", "content": "x"}], (0,), Sampling()) for i in range(20)]
        with pytest.raises(EngineError, match="budget"):
            for _, replies in engine.answer(requests):
                got += replies
    assert len(got) == server.replied < 20 and sum(a["cost"] for r in got for a in json.loads(r.usage)) >= 3.0


def test_the_key_is_in_no_output(monkeypatch, capfd):
    monkeypatch.setenv("CANARY", "sk-canary-12345")
    with Server(lambda i, b: {"status": 400, "body": {"error": "bad key sk-canary-12345"}}) as server:
        (_, reply), *_ = ask(server, n=1, api_key_env="CANARY")
    assert server.headers[0]["authorization"] == "Bearer sk-canary-12345"
    engine = EndpointEngine(server.url, "m", api_key_env="CANARY")
    assert "canary-12345" not in repr(reply) + repr(engine) + engine.identity() + str(capfd.readouterr())


def test_leaving_early_cancels_what_is_in_flight():
    with Server(lambda i, b: {"body": completion()} if i == 0 else {"hang": True}) as server:
        engine = EndpointEngine(server.url, "m", concurrency=4)
        requests = [Request(f"p{i}", [{"role": "user", "content": "x"}], (0,), Sampling()) for i in range(8)]
        started = time.monotonic()
        answers = engine.answer(requests)
        next(answers)
        answers.close()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://user:pw@h/v1", "http://h/v1?key=1", "x"])
def test_a_bad_url_is_one_line_without_its_secret(url: str):
    with pytest.raises(InputError) as e:
        EndpointEngine(url, "m")
    assert "pw" not in str(e.value) and "key=1" not in str(e.value)


def schedule(seed: int):
    """A server whose every answer is drawn from the faults, until a request has had its share of them."""
    rng, faults = random.Random(seed), Counter()
    kinds = [
        {"status": 429, "headers": {"Retry-After": "0"}}, {"status": 429}, {"reset": True}, {"status": 502},
        {"status": 500}, {"raw": b"{"}, {"body": {"choices": []}}, {"status": 400}, {"body": completion("", "content_filter")},
        {"body": completion("cut", "length")}, {"body": {"choices": completion()["choices"]}},
    ]  # fmt: skip

    def script(i: int, body: dict) -> dict:
        key = body["seed"]
        faults[key] += 1
        return {"body": completion()} if faults[key] > 6 or rng.random() < 0.5 else rng.choice(kinds)

    return script


@pytest.mark.parametrize("block", range(10))
def test_under_300_schedules_of_faults_every_sample_ends_once_and_the_ledger_agrees(block: int):
    for seed in range(block * 30, block * 30 + 30):
        with Server(schedule(seed)) as server:
            got = ask(server, n=4, k=2, concurrency=4)
        assert Counter((p, r.sample) for p, r in got) == Counter((f"p{i}", s) for i in range(4) for s in range(2)), seed
        ledger = [a for _, r in got for a in json.loads(r.usage)]
        assert len(ledger) == len(server.seen), seed
        assert sum(a["status"] == 200 for a in ledger) <= server.replied, seed
