"""The process in which math-verify runs: JSON lines in (`[id, gold, completion]`), JSON lines out (`[id, verdict]`).

Started by math_reward.py with a memory limit and an empty environment; it may hang or die without hurting anyone.
"""

import json
import resource
import sys


def main() -> None:
    limit = int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from math_verify import parse, verify

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        number, gold, completion = json.loads(line)
        # No time limit of the library's own (signals): the parent watches the clock and kills.
        truth = parse(f"\\boxed{{{gold}}}", parsing_timeout=None) or parse(gold, parsing_timeout=None)
        found = parse(completion, parsing_timeout=None)
        if not truth:
            verdict = "no_truth"
        elif not found:
            verdict = "no_answer"
        else:
            verdict = "pass" if verify(truth, found, timeout_seconds=None) else "fail"
        sys.stdout.write(json.dumps([number, verdict]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
