"""Which weights a model name means: a local folder, and an identity that changes when the weights do."""

import hashlib
from functools import lru_cache
from pathlib import Path

from curation.errors import EngineError

WHAT_COUNTS = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def model_folder(model: str) -> Path:
    """The local folder of a model: itself, or the snapshot of a Hub id. Raises EngineError."""
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
            raise EngineError(f"model {model}", "no config.json with safetensors", "a model folder", "check the path")
        return path
    return _snapshot(model)


def hide_loading_bars() -> None:
    """Transformers draws a bar for every file it loads or saves; a run shows its own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()


@lru_cache(maxsize=16)
def _snapshot(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    missing = EngineError(f"model {model}", "no such folder or Hub id", "a model folder or Hub id", "check the name")
    if model.startswith((".", "/")) or model.count("/") > 1:
        raise missing
    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        raise missing from e


def model_identity(model: str) -> str:
    """`name@hash`: the folder's name and a hash of its weights, config and tokenizer; a Hub id with its commit."""
    folder = model_folder(model)
    if not Path(model).is_dir():
        return f"{model}@{folder.name[:12]}"
    files = sorted(p for pattern in WHAT_COUNTS for p in folder.glob(pattern))
    return f"{folder.resolve().name}@{_digest(tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files))}"


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """Hash over the files' names and bytes. Sizes and times are in the key, so that a changed file is read again."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with open(path, "rb") as file:
            digest.update(Path(path).name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
