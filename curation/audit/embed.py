"""Embeddings for the probe: what a model's hidden states tell of the preference beyond the words themselves.

An answer's embedding is the mean of its last hidden states, scaled to length 1; a pair's is chosen − rejected. Answers
alone are read, without their prompts, so that the rung still is about answers only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from curation.audit.corpus import Corpus
from curation.audit.probe import MOST_PAIRS
from curation.errors import EngineError
from curation.reward_model import batches
from curation.weights import hide_loading_bars, model_folder

DIMENSIONS = 64
MAX_LENGTH = 512  # tokens of an answer that are read
BATCH_TOKENS = 8192
OVERSAMPLED, ROUNDS = 16, 3  # of the randomised decomposition


def embeddings(corpus: Corpus, model: str, dimensions: int = DIMENSIONS, seed: int = 0) -> np.ndarray:
    """float32 (M, d ≤ dimensions): chosen − rejected of the first M pairs, as many as the probe may ask for.

    `model`: folder or Hub id of any transformers model with hidden states. Raises EngineError.
    """
    tokenizer, loaded = _load(model)
    parts = []
    for chunk in corpus.chunks(_pairs(corpus)):
        pairs = range(chunk.first, chunk.first + chunk.pairs)
        texts = [chunk.text(p, which).decode("utf-8", "replace") for which in (1, 2) for p in pairs]
        of_texts = pooled(tokenizer, loaded, texts)
        parts.append(of_texts[: chunk.pairs] - of_texts[chunk.pairs :])
    differences = np.concatenate(parts)
    if not np.isfinite(differences).all():
        raise EngineError(f"model {model}", "hidden states that are no numbers", "finite ones", "use another model")
    return projected(differences, dimensions, seed)


def _pairs(corpus: Corpus) -> int:
    """MOST_PAIRS pairs and the rest of their last prompt."""
    if corpus.pairs <= MOST_PAIRS:
        return corpus.pairs
    return int(corpus.prompt_start[corpus.groups[MOST_PAIRS - 1] + 1])


def projected(differences: np.ndarray, dimensions: int, seed: int) -> np.ndarray:
    """Onto the directions in which the differences are largest: principal components about 0, by random projection and
    a few rounds of iteration (Halko et al. 2011, arXiv 0909.4061). Swapping the sides of a pair changes no direction."""
    if differences.shape[1] <= dimensions:
        return differences
    basis = np.random.default_rng(seed).standard_normal((differences.shape[1], dimensions + OVERSAMPLED))
    basis = basis[:, : differences.shape[1]].astype(np.float32)
    for _ in range(ROUNDS):
        basis = np.linalg.qr(differences.T @ (differences @ basis))[0]
    inside = differences @ basis
    _, directions = np.linalg.eigh((inside.T @ inside).astype(np.float64))
    turned = basis @ directions[:, ::-1][:, :dimensions]
    signs = np.sign(turned[np.abs(turned).argmax(0), np.arange(turned.shape[1])])
    found: np.ndarray = (differences @ (turned * signs)).astype(np.float32)
    return found


def pooled(tokenizer: Any, model: Any, texts: Sequence[str]) -> np.ndarray:
    """float32 (n, d): the mean last hidden state of each text, of length 1 (0 where a text has no token)."""
    most = min(MAX_LENGTH, tokenizer.model_max_length)
    encoded = tokenizer(list(texts), truncation=True, max_length=most)["input_ids"]
    lengths = np.array([len(ids) for ids in encoded], int)
    order = np.argsort(-lengths, kind="stable")
    width = int(getattr(model.config, "hidden_size", 0) or model.get_input_embeddings().weight.shape[1])
    found = np.zeros((len(encoded), width), np.float32)
    for part in batches(order[lengths[order] > 0], lengths, BATCH_TOKENS):
        found[part] = _means(model, [encoded[i] for i in part], tokenizer.pad_token_id or 0)
    return found


def _means(model: Any, encoded: Sequence[Sequence[int]], pad: int) -> np.ndarray:
    """Of one right-padded batch."""
    import torch

    rows = [torch.tensor(ids) for ids in encoded]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad).to(model.device)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    real = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
    with torch.inference_mode():
        hidden = model(input_ids=ids, attention_mask=real.long()).last_hidden_state.float()
        mean = (hidden * real[..., None]).sum(1) / lengths[:, None]
        found: np.ndarray = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
    return found


def _load(name: str) -> tuple[Any, Any]:
    """Tokenizer and model without a head, in fp32 on a CPU, as stored on a GPU. Raises EngineError."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    folder = model_folder(name)
    hide_loading_bars()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # it reports a head that is left out, which is the point here
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            folder, dtype="auto" if device == "cuda" else torch.float32, trust_remote_code=False, use_safetensors=True
        )
    except (OSError, ValueError) as e:
        first = str(e).strip().split("\n")[0][:200]
        raise EngineError(f"model {name}", first, "a transformers model with a tokenizer", "check --embed") from e
    finally:
        logging.set_verbosity(before)
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    return tokenizer, model.to(device).eval()
