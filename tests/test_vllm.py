"""Real vLLM, offline and served: the same greedy request on the same model gives the same rows from every engine."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from curation.engine import Request, Sampling
from curation.transformers_engine import TransformersEngine
from pipelines.toy_tasks import draw
from tests.fakes import tiny_model

vllm = pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` runs this with the real one")
pytestmark = pytest.mark.vllm

os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1")


def requests(n: int, samples: int, temperature: float) -> list[Request]:
    sampling = Sampling(temperature=temperature, max_tokens=24, seed=5)
    questions = [q for task in ("sums", "identity", "instructions") for q in draw(task, "train", n // 3, 0)]
    questions += questions[: n - len(questions)]
    return [Request(f"p{i}", q.messages, tuple(range(samples)), sampling) for i, q in enumerate(questions)]


def rows(engine, asked):
    found = {(r.prompt_id, reply.sample): reply for r, replies in engine.answer(asked) for reply in replies}
    return {key: (r.text, r.finish_reason, r.tokens) for key, r in found.items()}, {
        k: r.logprob for k, r in found.items()
    }


@pytest.fixture(scope="module")
def offline():
    from curation.vllm_engine import VLLMEngine

    return VLLMEngine(str(tiny_model()), dtype="float32", max_model_len=256, max_num_seqs=64, eager=True)


@pytest.fixture(scope="module")
def served():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_model()), "--served-model-name", "toy",
        "--dtype", "float32", "--max-model-len", "256", "--enforce-eager", "--host", "127.0.0.1", "--port", str(port),
        "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            assert process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).read()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def test_greedy_rows_are_those_of_the_transformers_engine(offline):
    asked = requests(30, 1, 0.0)
    ours, our_logprobs = rows(TransformersEngine(str(tiny_model())), asked)
    theirs, their_logprobs = rows(offline, asked)
    assert theirs == ours
    assert len({text for text, _, _ in ours.values()}) > 5, "a model that always says the same proves nothing"
    assert max(abs(our_logprobs[k] - their_logprobs[k]) for k in ours) < 1e-3


def test_one_request_gives_k_different_samples_reproducibly(offline):
    asked = requests(6, 4, 1.0)
    first, logprobs = rows(offline, asked)
    again, _ = rows(offline, asked)
    assert first == again and len(first) == 24 and all(v < 0 for v in logprobs.values())
    assert len({first[("p0", s)] for s in range(4)}) > 1


def test_a_part_of_a_group_asked_alone_is_the_same_as_in_the_whole(offline):
    whole, _ = rows(offline, requests(3, 4, 1.0))
    part, _ = rows(offline, [r._replace(samples=(1, 3)) for r in requests(3, 4, 1.0)])
    assert part == {k: v for k, v in whole.items() if k[1] in (1, 3)}


def test_a_prompt_that_does_not_fit_is_rejected_before_vllm_sees_it(offline):
    long = Request("p", [{"role": "user", "content": "x" * 300}], (0, 1), Sampling(max_tokens=24))
    ((_, replies),) = list(offline.answer([long]))
    assert [r.error.split(":")[0] for r in replies] == ["rejected", "rejected"]


def test_the_served_model_gives_the_same_greedy_rows_by_chat_and_by_token_ids(served):
    from curation.endpoint_engine import EndpointEngine

    asked = requests(30, 1, 0.0)
    ours, our_logprobs = rows(TransformersEngine(str(tiny_model())), asked)
    chat, _ = rows(EndpointEngine(served, "toy"), asked)
    tokens, logprobs = rows(EndpointEngine(served, "toy", tokenizer=str(tiny_model()), logprobs=True), asked)
    assert chat == ours and tokens == ours
    assert max(abs(our_logprobs[k] - logprobs[k]) for k in ours) < 1e-3


def test_the_served_model_samples_with_the_seeds_it_is_given(served):
    from curation.endpoint_engine import EndpointEngine

    asked = requests(6, 3, 1.0)
    first, _ = rows(EndpointEngine(served, "toy"), asked)
    assert rows(EndpointEngine(served, "toy"), asked)[0] == first and len(set(first.values())) > 6
