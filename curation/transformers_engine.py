"""TransformersEngine: a model in this process, on CPU or one GPU. The default engine."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from curation.chat import encode_prompts
from curation.engine import Engine, Reply, Request, Sampling, sample_seed
from curation.errors import EngineError
from curation.weights import hide_loading_bars, model_folder, model_identity


@dataclass(frozen=True)
class TransformersEngine:
    """A folder or Hub id. Weights load on first use and stay for the life of the process."""

    model: str
    device: str = "auto"  # cpu, cuda, or what is there
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: float32 on CPU, bfloat16 on a GPU
    rows: int = 256  # samples computed at once

    def identity(self) -> str:
        return model_identity(self.model)

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, list[Reply]]]:
        """Batches of prompts of like length and the same settings; a prompt that does not fit is rejected."""
        loaded = _load(self.identity(), self)
        with loaded.lock:
            groups: dict[tuple[Sampling, int], list[tuple[Request, list[int]]]] = {}
            for request, prompt in fitting(loaded.tokenizer, requests, loaded.context):
                if isinstance(prompt, str):
                    yield request, [Reply(s, "", "error", error=prompt) for s in request.samples]
                else:
                    groups.setdefault((request.sampling, len(request.samples)), []).append((request, prompt))
            for (sampling, samples), members in groups.items():
                members.sort(key=lambda m: (len(m[1]), m[0].prompt_id))
                size = max(1, self.rows // samples)
                for start in range(0, len(members), size):
                    yield from loaded.batch(members[start : start + size], sampling)


class Loaded:
    """Weights and tokenizer of an engine. One caller at a time (`lock`)."""

    def __init__(self, engine: TransformersEngine) -> None:
        import torch
        from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

        from curation.sampler import NAME, sampler_attention

        hide_loading_bars()
        folder = model_folder(engine.model)
        device = engine.device if engine.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        dtype = engine.dtype if engine.dtype != "auto" else "bfloat16" if device == "cuda" else "float32"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            self.model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError) as e:
            first = str(e).strip().split("\n")[0][:200]
            raise EngineError(f"model {engine.model}", first, "a causal language model", "check the folder") from e
        kinds = set(getattr(self.model.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise EngineError(
                f"model {engine.model}", f"layers of {', '.join(sorted(kinds))}", "full attention in every layer",
                "use VLLMEngine or an endpoint for this model",
            )  # fmt: skip
        AttentionInterface.register(NAME, sampler_attention)
        self.model.set_attn_implementation(NAME)
        self.model.to(device).eval()
        self.context = int(getattr(self.model.config, "max_position_embeddings", 2**31))
        self.end_ids = end_ids(self.tokenizer, self.model.generation_config)
        self.lock = threading.Lock()

    def batch(
        self, asked: Sequence[tuple[Request, list[int]]], sampling: Sampling
    ) -> Iterator[tuple[Request, list[Reply]]]:
        """Sample one batch of requests that want the same number of samples."""
        from curation.sampler import draw

        requests, prompts = [r for r, _ in asked], [p for _, p in asked]
        seeds = [[sample_seed(sampling.seed, r.prompt_id, s) for s in r.samples] for r in requests]
        stop = self._stops(sampling.stop) if sampling.stop else None
        drawn = draw(self.model, prompts, seeds, sampling, self.end_ids, stop)
        for request, samples in zip(requests, drawn, strict=True):
            yield (
                request,
                [
                    Reply(
                        index,
                        self._text(d.tokens, sampling.stop),
                        "stop" if d.stopped else "length",
                        len(d.tokens),
                        sum(d.logprobs),
                    )
                    for index, d in zip(request.samples, samples, strict=True)
                ],
            )

    def _text(self, tokens: Sequence[int], stops: Sequence[str]) -> str:
        """The tokens as text, without the end token and cut before a stop string."""
        kept = tokens[:-1] if tokens and tokens[-1] in self.end_ids else tokens
        text = str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        at = min((i for i in map(text.find, stops) if i >= 0), default=len(text))
        return text[:at]

    def _stops(self, stops: Sequence[str]) -> Any:
        def ended(tokens: list[int]) -> bool:
            text = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return any(s in text for s in stops)

        return ended


def fitting(tokenizer: Any, requests: Sequence[Request], context: int) -> Iterator[tuple[Request, list[int] | str]]:
    """Every request with its token ids, or with why it is rejected: a refused chat, or no room for the answer."""
    prompts = encode_prompts(tokenizer, [r.messages for r in requests], [r.tools for r in requests])
    for request, prompt in zip(requests, prompts, strict=True):
        room = context - request.sampling.max_tokens
        if isinstance(prompt, str):
            yield request, f"rejected: {prompt}"
        elif len(prompt) > room:
            yield request, f"rejected: prompt of {len(prompt)} tokens, room for {room}"
        else:
            yield request, prompt


def end_ids(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's and those the model's generation config names."""
    named = generation_config.eos_token_id if generation_config is not None else None
    found = named if isinstance(named, list) else [named]
    return frozenset(i for i in (*found, tokenizer.eos_token_id) if i is not None)


@lru_cache(maxsize=4)
def _load(identity: str, engine: TransformersEngine) -> Loaded:
    """The identity is in the key: weights that changed on disk are loaded again."""
    return Loaded(engine)


def auto_engine(model: str) -> Engine:
    """vLLM where it is installed and a GPU is there, else this file's engine."""
    import importlib.util

    import torch

    if torch.cuda.is_available() and importlib.util.find_spec("vllm"):
        from curation.vllm_engine import VLLMEngine

        return VLLMEngine(model)
    return TransformersEngine(model)
