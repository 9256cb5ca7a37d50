"""MathReward: is the answer mathematically the truth? Numbers are compared here, all else in a worker by math-verify.

The worker is another process with a memory limit and a clock: an answer that hangs or kills it costs that worker,
which is replaced. Model text is never evaluated in this process.
"""

import json
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from curation.answers import as_number, final_answer
from curation.errors import EngineError
from curation.rewards import number_in
from curation.score import NO_VERDICT, Verdict

START_SECONDS = 120.0
LONGEST = 20_000  # characters of a completion a worker is given, from its end
SCORES = {"pass": 1.0, "fail": 0.0, "no_answer": 0.0}


@dataclass(frozen=True)
class MathReward:
    """1 for the right answer, 0 for a wrong one or none ("no_answer"), NaN where the grader failed.

    The answer is the last `#### x`, `\\boxed{x}`, `A: x` or "the answer is x", else the last number. A truth that is a
    plain number is compared exactly with a number; every other pair goes to math-verify (sympy). An answer on which
    the grader timed out or crashed twice is judged 0 with that verdict: else a hang would be a way out of judgement.
    """

    timeout: float = 5.0  # seconds for one answer in the worker
    memory: int = 1024  # MiB for the worker

    @property
    def name(self) -> str:
        return "math"

    def __call__(self, rows: pa.Table) -> list[Verdict]:
        truths = rows["ground_truth"].to_pylist() if "ground_truth" in rows.column_names else [None] * rows.num_rows
        verdicts = [_quick(c, t) for c, t in zip(rows["completion"].to_pylist(), truths, strict=True)]
        hard = [i for i, v in enumerate(verdicts) if v is None]
        if hard:
            completions = rows["completion"].take(pa.array(hard)).to_pylist()
            answers = grade(self, [(truths[i], c) for i, c in zip(hard, completions, strict=True)])
            for i, verdict in zip(hard, answers, strict=True):
                verdicts[i] = verdict
        return [v for v in verdicts if v is not None]


def _quick(completion: str, truth: str | None) -> Verdict | None:
    """The verdict where both sides are plain numbers or one is missing; None where a worker must look."""
    if truth is None:
        return Verdict(NO_VERDICT, "no_truth")
    marked = final_answer(truth) or truth
    wanted = as_number(marked)
    if wanted is None:
        return None
    answer = final_answer(completion)
    found = number_in(completion)
    if found is not None and found == wanted:
        return Verdict(1.0, "pass")
    if answer is not None and as_number(answer) is None and not _plain(answer):
        return None  # an expression: "\\frac{84}{2}", "2^5", "3 \\times 4"
    if found is None:
        return Verdict(0.0, "no_answer")
    return Verdict(0.0, "fail")


def _plain(answer: str) -> bool:
    """An answer in words around a number ("12 apples", "$5 each"), with nothing to work out."""
    return not any(sign in answer for sign in "\\^=*/(){}√π+") and "sqrt" not in answer


def grade(reward: MathReward, pairs: Sequence[tuple[str | None, str]]) -> list[Verdict]:
    """Verdicts of (truth, completion) pairs from this reward's worker, in order. Raises EngineError if none starts."""
    worker = _worker_of(reward)
    with worker.lock:
        return [worker.judge(final_answer(t or "") or t or "", c[-LONGEST:]) for t, c in pairs]


class Worker:
    """One grading process, started when first needed, replaced when it hangs or dies."""

    def __init__(self, reward: MathReward) -> None:
        self.reward, self.lock, self.asked = reward, threading.Lock(), 0
        self.process: subprocess.Popen[bytes] | None = None
        self.rest = b""

    def judge(self, truth: str, completion: str) -> Verdict:
        """A grader that fails twice on one answer is the answer's doing: 0. Once is bad luck: tried again."""
        verdict = ""
        for _ in range(2):
            verdict = self._ask(truth, completion)
            if verdict in SCORES:
                return Verdict(SCORES[verdict], verdict)
            if verdict == "no_truth":
                return Verdict(NO_VERDICT, verdict)
            if verdict == "timeout":
                break  # a second try would only wait again
        return Verdict(0.0, verdict)

    def _ask(self, truth: str, completion: str) -> str:
        process = self._running()
        assert process.stdin is not None
        self.asked += 1
        try:
            process.stdin.write(json.dumps([self.asked, truth, completion]).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            return "crashed"
        line = self._line(self.reward.timeout)
        if line is None:
            hung = process.poll() is None
            self.close()
            return "timeout" if hung else "crashed"
        number, verdict = json.loads(line)
        assert number == self.asked, "a worker answered another question"
        return str(verdict)

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is None or self.process.poll() is not None:
            # -S would lose site-packages; the environment is empty but for what Python needs to start.
            command = [sys.executable, "-m", "curation.math_worker", str(self.reward.memory)]
            environment = {
                "PATH": os.defpath,
                "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                "OMP_NUM_THREADS": "1",
            }
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
                start_new_session=True,
            )  # fmt: skip
            self.rest = b""
            if self._line(START_SECONDS) != b"ready":
                self.close()
                raise EngineError(
                    "math grader", "a worker that does not start", "math-verify", "pip install math-verify"
                )
        return self.process

    def _line(self, seconds: float) -> bytes | None:
        """The next line the worker writes, or None when it stays silent too long or ends."""
        import time

        assert self.process is not None and self.process.stdout is not None
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.rest:
                if not ready.select(max(0.0, until - time.monotonic())):
                    return None
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    return None
                self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def close(self) -> None:
        """End the process, hung or not."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
            self.process = None


_workers: dict[MathReward, Worker] = {}
_workers_lock = threading.Lock()


def _worker_of(reward: MathReward) -> Worker:
    import atexit

    with _workers_lock:
        if reward not in _workers:
            _workers[reward] = Worker(reward)
            atexit.register(_workers[reward].close)
        return _workers[reward]
