"""Every benchmark that runs on CPU, one after the other: `make bench`."""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trl-python", required=True)
    given = parser.parse_args()
    for words in (
        ["runner_overhead.py"], ["sampling.py"], ["sft_vs_trl.py", "--trl-python", given.trl_python],
        ["preference_vs_trl.py", "--trl-python", given.trl_python], ["losses_vs_trl.py", "--trl-python", given.trl_python],
        ["toy_preferences.py"], ["toy_shortcut.py"], ["kills.py"],
    ):  # fmt: skip
        print(f"== {words[0]}", flush=True)
        subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]], check=True)


if __name__ == "__main__":
    main()
