"""Checkpoints that are whole or do not count.

    OUT/checkpoints/step-00000020/  state.pt   CKPT.json {step, settings, data, files: {name: sha256}}

CKPT.json is written last, after every file is on disk. Resuming walks from the newest to the first that verifies;
a damaged one is renamed `.bad` and said aloud. State files are loaded as tensors only, never unpickled freely.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from curation.errors import InputError, StorageError

MANIFEST = "CKPT.json"


def save_checkpoint(root: Path, step: int, state: Mapping[str, Any], record: Mapping[str, Any], keep: int) -> Path:
    """Write one checkpoint, whole or not at all, then remove all but the newest `keep`. Raises StorageError."""
    final = root / f"step-{step:08d}"
    work = root / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True)
        torch.save(dict(state), work / "state.pt")
        sync(work / "state.pt")
        manifest = {"step": step, **record, "files": {"state.pt": sha256(work / "state.pt")}}
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1))
        sync(work / MANIFEST)
        shutil.rmtree(final, ignore_errors=True)
        work.rename(final)
        sync(root)
    except OSError as e:
        shutil.rmtree(work, ignore_errors=True)
        raise StorageError(str(final), str(e.strerror), "room for a checkpoint", "free space and start again") from e
    for old in checkpoints(root)[max(1, keep) :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(root: Path, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(manifest, state) of the newest checkpoint that verifies, or None where there is none.

    Raises InputError when it was made with other settings or data: that would silently be another experiment.
    """
    for folder in checkpoints(root):
        manifest = verify(folder)
        if manifest is None:
            bad = folder.with_name(folder.name + ".bad")
            shutil.rmtree(bad, ignore_errors=True)
            folder.rename(bad)
            print(f"checkpoint {folder.name} is damaged; set aside as {bad.name}", file=sys.stderr)
            continue
        for name, value in record.items():
            if name != "metrics_bytes" and manifest.get(name) != value:
                raise InputError(
                    str(folder), f"another {name} than this run's", f"the same {name}",
                    "use another --out, or --no-resume to start over",
                )  # fmt: skip
        return manifest, torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    return None


def checkpoints(root: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted((p for p in root.glob("step-????????") if p.is_dir()), reverse=True)


def verify(folder: Path) -> dict[str, Any] | None:
    """The manifest if every file in it is there with its hash, else None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
        whole = bool(files) and all(sha256(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
