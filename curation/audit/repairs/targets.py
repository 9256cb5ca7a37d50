"""What is to be mended, and where it stands: findings of an audit, looked up anew in the texts at hand."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from curation.audit.corpus import Corpus
from curation.audit.features import collect, survey
from curation.audit.findings import SEVERITIES, TEXT, Finding, signed_rows
from curation.audit.signed import signed_features
from curation.errors import InputError

COUNTED = (*TEXT, "number", "lexicon", "script", "language", "column")  # families that pairs alone decide


class Target(NamedTuple):
    """One feature to mend. A feature of texts is known by its key, one of whole pairs by family and name."""

    family: str
    feature: str
    key: str  # 16 hex digits, or ""

    @property
    def number(self) -> np.uint64:
        return np.uint64(int(self.key, 16))


def targets_of(findings: Iterable[Finding], only: Sequence[str] = (), strict: bool = True) -> list[Target]:
    """Findings from warn on that can be counted again, each once. `only`: those named so, whatever their severity.

    Raises InputError where one that is named is not there, unless it need not be (`strict`).
    """
    return _chosen(((f.family, f.feature, f.key, f.severity, f.members) for f in findings), only, strict)


def read_targets(path: str, pairs: int, content: str, only: Sequence[str] = ()) -> list[Target]:
    """The same from an audit.json, which must be of these pairs. Raises InputError."""
    expected, remedy = "audit.json of these pairs", "run `thresher audit` on them"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        listed = [
            (str(f["family"]), str(f["feature"]), str(f["key"]), str(f["severity"]), tuple(map(str, f["members"])))
            for f in found["findings"]
        ]
        audited, known = int(found["pairs"]), str(found["content"])
        keys = [int(f[2] or "0", 16) for f in listed]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(path, f"{type(e).__name__}: {e}", expected, remedy) from e
    if (audited, known) != (pairs, content) or max(keys, default=0) >= 1 << 64:
        raise InputError(path, f"an audit of {audited} other pairs", f"one of these {pairs}", remedy)
    wrong = [f[1] for f in listed if f[3] not in SEVERITIES]
    if wrong:
        raise InputError(path, f"{wrong[0]!r} of unknown severity", f"one of {', '.join(SEVERITIES)}", remedy)
    return _chosen(listed, only)


def _chosen(
    listed: Iterable[tuple[str, str, str, str, tuple[str, ...]]], only: Sequence[str], strict: bool = True
) -> list[Target]:
    found, missing = [], set(only)
    for family, feature, key, severity, members in listed:
        named = {feature, *members} & set(only)
        missing -= named
        if (named or (not only and severity != "info")) and (key or family not in TEXT) and family in COUNTED:
            found.append(Target(family, feature, key))
    if missing and strict:
        raise InputError("--only", repr(min(missing)), "the text of a finding, as audit.json has it", "see audit.md")
    return list(dict.fromkeys(found))


def signs_of(corpus: Corpus, targets: Sequence[Target], workers: int = 1) -> sparse.csr_matrix:
    """int32 (targets, pairs): +1 where the chosen side alone has the feature (or has more), −1 the rejected."""
    texts = [t for t in targets if t.key]
    keys = list(dict.fromkeys(t.key for t in texts))
    found = collect(corpus, np.array([int(k, 16) for k in keys], np.uint64), corpus.pairs, workers)
    of_texts = signed_rows(found, np.arange(len(keys)))
    named = _of_pairs(corpus, targets, workers) if len(texts) < len(targets) else {}
    place, rows = {k: i for i, k in enumerate(keys)}, []
    nothing = np.zeros(corpus.pairs, np.int32)
    for t in targets:
        rows.append(of_texts[place[t.key]] if t.key else sparse.csr_matrix(named.get((t.family, t.feature), nothing)))
    if not rows:
        return sparse.csr_matrix((0, corpus.pairs), dtype=np.int32)
    return sparse.vstack(rows).astype(np.int32).tocsr()


def _of_pairs(corpus: Corpus, targets: Sequence[Target], workers: int) -> Mapping[tuple[str, str], Any]:
    wanted = {(t.family, t.feature) for t in targets}
    signed = signed_features(corpus, survey(corpus, workers))
    return {(s.family, s.name): s.signs.astype(np.int32) for s in signed if (s.family, s.name) in wanted}
