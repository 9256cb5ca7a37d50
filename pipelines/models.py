"""Model names a user may write: a folder, a Hub id, the URL of a server, or `toy:base` and `toy:teacher`."""

from typing import Literal

from curation.engine import Engine
from curation.errors import InputError

EngineKind = Literal["auto", "transformers", "vllm", "endpoint"]


def model_path(name: str) -> str:
    """The name itself, or the folder of a toy model (made on first use, then cached)."""
    if not name.startswith("toy:"):
        return name
    from pipelines.toy import toy_model

    return str(toy_model(name.removeprefix("toy:")))


def engine_for(name: str, kind: EngineKind = "auto", api_key_env: str | None = None) -> Engine:
    """The engine that answers for `name`. `URL#MODEL` names the model on a server: http://127.0.0.1:8000/v1#qwen.

    Raises InputError for an endpoint without a model name.
    """
    if kind == "endpoint" or (kind == "auto" and name.startswith(("http://", "https://"))):
        from curation.endpoint_engine import EndpointEngine

        url, _, model = name.partition("#")
        if not model or not url.startswith(("http://", "https://")):
            raise InputError("model", name, "URL#MODEL for an endpoint", "write e.g. http://127.0.0.1:8000/v1#qwen")
        return EndpointEngine(base_url=url, model=model, api_key_env=api_key_env)
    path = model_path(name)
    if kind == "vllm":
        from curation.vllm_engine import VLLMEngine

        return VLLMEngine(path)
    if kind == "transformers":
        from curation.transformers_engine import TransformersEngine

        return TransformersEngine(path)
    from curation.transformers_engine import auto_engine

    return auto_engine(path)
