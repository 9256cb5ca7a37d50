"""`python -m curation.audit.warm`: compile the audit's kernels, once after installation, so that no audit has to wait."""

import numpy as np
import pyarrow as pa

from curation.audit.corpus import Builder
from curation.audit.reading import batches_of
from curation.audit.whole import audit

WORDS = ("what", "is", "Good,", "répondre", "你好", "sorry!", "I'm", "not", "1.", "- a", "**b**", "\n", "later", "now")


def warm() -> None:
    """Audit a few pairs that were made up, in memory, then from a file and beyond a sample."""
    rng = np.random.default_rng(0)
    columns = {
        side: [f"{i % 150} " + " ".join(rng.choice(WORDS, 12)) + mark * (i % 3 > 0) for i in range(300)]
        for side, mark in (("prompt", ""), ("chosen", " indeed"), ("rejected", ""))
    }
    columns["prompt"] = [f"question {i % 200}" for i in range(300)]
    for in_memory, sample in ((1 << 30, 1 << 30), (1 << 12, 1 << 14)):
        builder = Builder(in_memory)
        for batch in batches_of(pa.table(columns).to_batches(64)):
            builder.add(batch)
        audit(builder.finish(), sample=sample)


if __name__ == "__main__":
    warm()
