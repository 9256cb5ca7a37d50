"""A hundred kills (SIGKILL at random moments, 30 % of the starts with two writers): are the final bytes the same?

python benchmarks/kills.py [--kills 100]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.killed_run import campaign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            **campaign(Path(folder), given.kills, given.seed, pairs=0.3),
            "seconds": round(time.monotonic() - started),
        }
    print(found)
    Path(__file__).with_name("results").joinpath("kills.json").write_text(json.dumps(found, indent=1) + "\n")
    assert found["different"] == 0 and found["asked_twice"] == 0


if __name__ == "__main__":
    main()
