"""The rows: one Arrow schema per kind of shard, and ids made from content.

    prompts ──Sample──> candidates ──Score──> scored ──BestOfK, ToMessages──> sft
                                                └──OnPolicyPairs, CorrectionPairs──> dpo

A row carries the columns of the rows it came from, so that every shard can be read alone and every row can be
traced back by id. Ids are SHA-256 over canonical JSON: the same row has the same id on every machine.
Free-form values (sampling settings, tools, extras) are JSON text, never structs: a struct that gains a null field
(`tool_calls: null`) breaks chat templates downstream.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
MESSAGES = pa.list_(MESSAGE)

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", MESSAGES),
        ("source", pa.string()),  # where the row was read from: file name or data set id
        ("task", pa.string()),  # kind of task, e.g. "math"; groups rows in reports
        ("ground_truth", pa.string()),  # always text; JSON text for code tests; null where there is none
        ("tools", pa.string()),  # JSON list of tool schemas, or null
        ("extra", pa.string()),  # JSON object of columns that were not recognised
    ]
)

CANDIDATES = pa.schema(
    [
        *PROMPTS,
        ("candidate_id", pa.string()),
        ("completion", pa.string()),
        ("reasoning", pa.string()),  # thinking kept apart from the answer, or null
        ("finish_reason", pa.string()),  # stop, length, content_filter, tool_calls, abort, repetition
        ("origin", pa.string()),  # policy, teacher, correction, human
        ("model", pa.string()),  # the engine's identity: name and weight hash
        ("sampling", pa.string()),  # JSON: temperature, top_p, …, seed, sample index
        ("logprob", pa.float64()),  # sum of token log-probabilities, nats; null where the engine gives none
        ("completion_tokens", pa.int32()),
    ]
)

SCORED = pa.schema(
    [
        *CANDIDATES,
        ("score", pa.float64()),  # NaN = no verdict, never 0
        ("scores", pa.map_(pa.string(), pa.float64())),  # every part of the score by name
        ("verdict", pa.string()),  # why: "pass", "fail", "timeout", "no answer found", …
    ]
)

SFT = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("candidate_id", pa.string()),
        ("messages", MESSAGES),
        ("tools", pa.string()),
        ("source", pa.string()),
        ("task", pa.string()),
        ("model", pa.string()),
        ("score", pa.float64()),
        ("weight", pa.float64()),
    ]
)

DPO = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),  # one assistant message
        ("rejected", MESSAGES),  # one assistant message
        ("chosen_score", pa.float64()),  # NaN = nobody judged
        ("rejected_score", pa.float64()),
        ("margin", pa.float64()),  # chosen_score - rejected_score
        ("kind", pa.string()),  # how the pair was made: best_worst, correct_wrong, correction, human, imported, …
        ("chosen_id", pa.string()),  # candidate_id of either side
        ("rejected_id", pa.string()),
        ("chosen_model", pa.string()),
        ("rejected_model", pa.string()),
        ("source", pa.string()),
        ("task", pa.string()),
        ("tools", pa.string()),
        ("weight", pa.float64()),  # of the pair in the loss; null = 1
        ("offset", pa.float64()),  # how much more than 0 the reward margin is asked to be; null = 0
    ]
)

REFERENCE = (  # what ReferenceLogprobs adds
    ("ref_chosen_logps", pa.float64()),  # log-probability of the whole completion under the reference, nats
    ("ref_rejected_logps", pa.float64()),
    ("ref_key", pa.string()),  # hash of the reference's weights and of the tokens
)

DROPS = pa.schema([("row_id", pa.string()), ("reason", pa.string()), ("detail", pa.string())])

ROLES = ("system", "user", "assistant", "tool")
ORIGINS = ("policy", "teacher", "correction", "human")
FINISH_REASONS = ("stop", "length", "content_filter", "tool_calls", "abort", "repetition")

Message = dict[str, str]

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, NaN refused (ValueError)."""
    return _CANONICAL.encode(value)


def content_id(*parts: Any) -> str:
    """32 hex characters from SHA-256 of the parts' canonical JSON. content_id("a", 1) is the same everywhere."""
    return hashlib.sha256(canonical_json(parts).encode("utf-8")).hexdigest()[:32]


def prompt_id(prompt: Iterable[Mapping[str, str]], ground_truth: str | None = None, tools: str | None = None) -> str:
    """Id of a prompt: its messages, truth and tools. Where it was read from does not matter."""
    return content_id("prompt", [[m["role"], m["content"]] for m in prompt], ground_truth, tools)


def candidate_id(
    prompt_id: str, model: str, origin: str, sampling: str, completion: str, reasoning: str | None = None
) -> str:
    """Id of a candidate. `sampling` holds seed and sample index, so two equal texts of one prompt stay two rows."""
    return content_id("candidate", prompt_id, model, origin, sampling, completion, reasoning)


def pair_id(prompt_id: str, chosen_id: str, rejected_id: str) -> str:
    """Id of a preference: which answer was preferred to which."""
    return content_id("pair", prompt_id, chosen_id, rejected_id)


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` with exactly the columns of `schema`, in its order, cast; columns that are absent become null."""
    columns = [
        rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type) for f in schema
    ]
    return pa.table(columns, schema=schema)
