"""SIGKILL at random moments, sometimes with two writers: the same bytes in the end, nothing asked twice."""

from pathlib import Path

from tests.killed_run import campaign


def test_kills_at_random_moments_change_nothing(tmp_path: Path):
    found = campaign(tmp_path, kills=8, seed=1, pairs=0.3)
    assert found["kills"] >= 8 and found["different"] == 0 and found["asked_twice"] == 0
