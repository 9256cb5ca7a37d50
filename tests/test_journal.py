"""The journal: what was answered once is never asked again."""

from pathlib import Path

from curation.engine import Reply, Request, Sampling
from curation.journal import Journal
from tests.fakes import FakeEngine


def requests(n: int, k: int = 2, **settings: object) -> list[Request]:
    sampling = Sampling(**settings)
    return [Request(f"p{i}", [{"role": "user", "content": f"double {i}"}], tuple(range(k)), sampling) for i in range(n)]


def answered(folder: Path, asked: list[Request], engine: FakeEngine | None = None) -> tuple[dict, int]:
    journal = Journal(folder)
    got = {
        (r.prompt_id, reply.sample): reply
        for r, found in journal.answer(engine or FakeEngine(), asked)
        for reply in found
    }
    journal.close()
    return got, journal.asked


def test_a_second_run_asks_nothing_and_gives_the_same(tmp_path: Path):
    first, asked = answered(tmp_path, requests(5))
    again, asked_again = answered(tmp_path, requests(5))
    assert first == again and asked == 10 and asked_again == 0


def test_only_missing_samples_are_asked(tmp_path: Path):
    answered(tmp_path, requests(5, k=2))
    got, asked = answered(tmp_path, requests(5, k=3))
    assert len(got) == 15 and asked == 5


def test_another_model_prompt_or_setting_is_another_question(tmp_path: Path):
    answered(tmp_path, requests(3))
    assert answered(tmp_path, requests(3), FakeEngine(name="fake@2"))[1] == 6
    assert answered(tmp_path, requests(3, temperature=0.5))[1] == 6
    assert (
        answered(tmp_path, [r._replace(messages=[{"role": "user", "content": "double 9"}]) for r in requests(3)])[1]
        == 6
    )


def test_a_torn_or_damaged_line_costs_that_answer_alone(tmp_path: Path):
    first, _ = answered(tmp_path, requests(5))
    (path,) = tmp_path.glob("*.jl")
    whole = path.read_bytes()
    for at in range(len(whole) - 1, 0, -37):
        path.write_bytes(whole[:at])
        got, asked = answered(tmp_path, requests(5))
        assert got == first and asked <= 10
        for extra in set(tmp_path.glob("*.jl")) - {path}:
            extra.unlink()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(bytes(flipped))
    got, asked = answered(tmp_path, requests(5))
    assert got == first and asked == 2


def test_passing_faults_are_asked_again_and_final_ones_are_not(tmp_path: Path):
    def faults(request, sample):
        return Reply(sample, "", "error", error="failed: 500" if sample else "rejected: too long")

    answered(tmp_path, requests(3), FakeEngine(faults))
    got, asked = answered(tmp_path, requests(3))
    assert asked == 3 and all(
        got[f"p{i}", 0].error == "rejected: too long" and got[f"p{i}", 1].error is None for i in range(3)
    )


def test_text_of_any_kind_comes_back_as_it_was(tmp_path: Path):
    text = 'né\n"\\\u2028\x00\t🙂' * 3
    engine = FakeEngine(lambda r, s: Reply(s, text, "stop", 7, -1.25, "because\n", None, "[]"))
    assert answered(tmp_path, requests(2), engine)[0] == answered(tmp_path, requests(2))[0]
