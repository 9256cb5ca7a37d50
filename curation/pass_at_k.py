"""How often a policy solves its prompts: pass@k without bias, and majority vote."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curation.answers import as_number, final_answer


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that one of k answers drawn from n, of which c are right, is right (Chen et al. 2021, eq. 1).

    1 − C(n−c, k) / C(n, k), as a product, so that nothing overflows. NaN where n < k.
    """
    if n < k or n == 0:
        return float("nan")
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def solved(rows: pa.Table, passing: float = 1.0) -> dict[str, tuple[int, int]]:
    """prompt_id → (answers with a verdict, right answers). Answers without verdict count on neither side."""
    counts: dict[str, tuple[int, int]] = {}
    for prompt, score in zip(rows["prompt_id"].to_pylist(), rows["score"].to_pylist(), strict=True):
        n, c = counts.get(prompt, (0, 0))
        judged = score is not None and score == score
        counts[prompt] = (n + judged, c + (judged and score >= passing))
    return counts


def mean_pass_at_k(rows: pa.Table, k: int, passing: float = 1.0) -> float:
    """Mean of pass@k over the prompts that have k answers with a verdict; NaN where none has."""
    values = [p for n, c in solved(rows, passing).values() if not np.isnan(p := pass_at_k(n, c, k))]
    return float(np.mean(values)) if values else float("nan")


def vote_key(completion: str) -> str:
    """What an answer votes for: its final answer, as a number where it is one, so that "12" and "12.0" vote together."""
    answer = final_answer(completion) or completion.strip()
    number = as_number(answer)
    return str(number) if number is not None else " ".join(answer.casefold().split())


def majority_vote(rows: pa.Table, passing: float = 1.0) -> dict[str, float]:
    """prompt_id → share of the winning votes that are right (maj@k); ties between answers share the win.

    Answers without verdict do not vote; a prompt without votes is left out.
    """
    ballots: dict[str, list[tuple[str, bool]]] = {}
    columns = (rows[c].to_pylist() for c in ("prompt_id", "completion", "score"))
    for prompt, completion, score in zip(*columns, strict=True):
        if score is not None and score == score:
            ballots.setdefault(prompt, []).append((vote_key(completion), score >= passing))
    return {prompt: _won(votes) for prompt, votes in ballots.items()}


def _won(votes: Sequence[tuple[str, bool]]) -> float:
    counts = Counter(key for key, _ in votes)
    most = max(counts.values())
    winners = {key for key, count in counts.items() if count == most}
    right = {key for key, is_right in votes if is_right}
    return len(winners & right) / len(winners)
