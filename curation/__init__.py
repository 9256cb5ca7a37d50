"""From prompts to shards. The names a recipe needs, loaded when first used so that nothing heavy comes along."""

import importlib
from typing import Any

_WHERE = {
    "BestOfK": "best_of_k", "EndpointEngine": "endpoint_engine", "ExactMatch": "rewards", "FormatCheck": "rewards",
    "FunctionReward": "rewards", "MathReward": "math_reward", "NumericMatch": "rewards", "Outcome": "stage",
    "Sample": "sample", "Score": "score", "ShortcutGate": "audit",
    "ToMessages": "messages", "TransformersEngine": "transformers_engine",
    "VLLMEngine": "vllm_engine", "WeightedSum": "rewards", "auto_engine": "transformers_engine",
    "read_candidates": "source", "read_messages": "source", "read_prompts": "source", "read_shards": "shards", "run": "runner",
}  # fmt: skip
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'curation' has no attribute {name!r}")
    return getattr(importlib.import_module(f"curation.{_WHERE[name]}"), name)
