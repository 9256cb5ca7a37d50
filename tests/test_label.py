"""The label page: what a person said is kept, nobody else is heard, and it works in a real browser by keyboard."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from curation.errors import InputError, StorageError
from curation.label import Desk, read_tasks
from curation.label_exports import read_export
from curation.pair_source import read_pairs
from curation.votes import Vote, Votes, decided, krippendorff_alpha

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture
def candidates(tmp_path: Path) -> str:
    rows = [
        {"prompt": f"Question {i}? {HOSTILE}", "completion": f"{kind} answer {i} {HOSTILE}", "model": f"m-{kind}"}
        for i in range(20)
        for kind in ("good", "poor")
    ]
    (tmp_path / "candidates.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(tmp_path / "candidates.jsonl")


class Served:
    """The real command, serving on a free port; stopped like Ctrl-C."""

    def __init__(self, candidates: str, out: Path) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        words = [
            sys.executable,
            "-m",
            "pipelines.cli",
            "label",
            candidates,
            "--out",
            str(out),
            "--port",
            str(self.port),
        ]
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.link = self.process.stderr.readline().split()[-1]
        self.base = f"http://127.0.0.1:{self.port}"
        for _ in range(200):
            try:
                httpx.get(self.base, timeout=1)
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the page did not come up")

    def client(self) -> httpx.Client:
        """A browser-like client that has followed the link."""
        client = httpx.Client(base_url=self.base, headers={"origin": self.base, "x-thresher": "1"})
        client.cookies = httpx.get(self.link, follow_redirects=False).cookies
        return client

    def stop(self) -> str:
        self.process.send_signal(2)
        return self.process.communicate(timeout=30)[0]


@pytest.fixture
def served(candidates: str, tmp_path: Path):
    page = Served(candidates, tmp_path / "labels")
    yield page
    if page.process.poll() is None:
        page.stop()


def post(client: httpx.Client, path: str, body: object) -> httpx.Response:
    return client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})


def attacks(served: Served) -> list[tuple[str, str, dict[str, str], bytes]]:
    """(method, path, headers, body): each would be heard if one check were missing."""
    host, port = f"127.0.0.1:{served.port}", served.port
    token = served.link.partition("token=")[2]
    cookie = {"cookie": f"thresher-{port}={token}"}
    sound = {"host": host, "origin": f"http://{host}", "content-type": "application/json", "x-thresher": "1", **cookie}
    body = json.dumps({"annotator": "eve"}).encode()
    found = []
    for wrong in (  # no or a wrong token
        {}, {"cookie": ""}, {"cookie": f"thresher-{port}="}, {"cookie": f"thresher-{port}={token[:-1]}"},
        {"cookie": f"thresher-{port}={token}x"}, {"cookie": f"thresher={token}"}, {"cookie": f"thresher-{port + 1}={token}"},
        {"authorization": f"Bearer {token}"}, {"x-token": token},
    ):  # fmt: skip
        bare = {k: v for k, v in sound.items() if k != "cookie"}
        found += [("GET", "/", {**bare, **wrong}, b""), ("POST", "/next", {**bare, **wrong}, body)]
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1.evil:{port}",
                 f"0.0.0.0:{port}", f"[::1]:{port}", ""):  # fmt: skip
        found.append(("GET", "/", {**sound, "host": name}, b""))
    for origin in (
        "http://evil.example",
        "null",
        f"https://{host}",
        f"http://127.0.0.1:{port + 1}",
        f"http://{host}.evil",
    ):
        found.append(("POST", "/vote", {**sound, "origin": origin}, body))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        found.append(("POST", "/vote", {**sound, "content-type": kind}, body))
    no_header = {k: v for k, v in sound.items() if k != "x-thresher"}
    no_origin = {k: v for k, v in sound.items() if k != "origin"}
    found += [
        ("POST", "/vote", no_header, body), ("POST", "/vote", no_origin, body), ("PUT", "/vote", sound, body),
        ("DELETE", "/", sound, b""), ("OPTIONS", "/vote", sound, b""), ("HEAD", "/", sound, b""),
        ("POST", "/vote", {**sound, "sec-fetch-site": "cross-site"}, body), ("GET", "/", {**sound, "sec-fetch-site": "same-site"}, b""),
        ("POST", "/vote", sound, b"x" * 70_000), ("GET", "/docs", sound, b""), ("GET", "/openapi.json", sound, b""),
        ("GET", "/../votes.jsonl", sound, b""), ("GET", f"/?token={token[:-1]}", no_header | {"cookie": ""}, b""),
    ]  # fmt: skip
    return found


def test_forty_hostile_requests_are_refused_and_change_nothing(served: Served, tmp_path: Path):
    tried = attacks(served)
    assert len(tried) >= 40
    for method, path, headers, body in tried:
        reply = raw(served.port, method, path, headers, body)
        assert 400 <= reply < 500, (method, path, headers, reply)
    assert not (tmp_path / "labels" / "votes.jsonl").exists()


def raw(port: int, method: str, path: str, headers: dict[str, str], body: bytes) -> int:
    """Status of a request sent byte for byte as given."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items() if v or k != "host")]
    lines += [f"content-length: {len(body)}"] * bool(body) + ["connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        s.sendall("\r\n".join(lines).encode() + body)
        answer = s.makefile("rb").readline().split()
    return int(answer[1])


@pytest.mark.parametrize(
    "body",
    [
        [], "x", {}, {"vote_id": "12345678"}, {"vote_id": 1, "pair_id": 2, "annotator": 3, "pick": 4},
        {"vote_id": "a" * 8, "pair_id": "nope", "annotator": "eve", "pick": "left"},
        {"vote_id": "short", "pair_id": "KNOWN", "annotator": "eve", "pick": "left"},
        {"vote_id": "a" * 8, "pair_id": "KNOWN", "annotator": "../eve", "pick": "left"},
        {"vote_id": "a" * 8, "pair_id": "KNOWN", "annotator": "eve", "pick": "first"},
        {"vote_id": "a" * 8, "pair_id": "KNOWN", "annotator": "eve", "pick": "left", "more": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_vote_that_is_none_is_refused(served: Served, tmp_path: Path, body):
    with served.client() as client:
        known = post(client, "/next", {"annotator": "eve"}).json()["task"]["pair_id"]
        if isinstance(body, dict):
            body = {k: known if v == "KNOWN" else v for k, v in body.items()}
        assert post(client, "/vote", body).status_code == 422
    assert not (tmp_path / "labels" / "votes.jsonl").exists()


def test_the_page_is_served_with_a_strict_policy_and_names_no_model(served: Served):
    with served.client() as client:
        page = client.get("/")
        assert (
            "default-src 'none'" in page.headers["content-security-policy"]
            and page.headers["x-frame-options"] == "DENY"
        )
        assert "access-control-allow-origin" not in page.headers and "NONCE" not in page.text
        task = post(client, "/next", {"annotator": "ann"}).text
        assert "m-good" not in task and "m-poor" not in task and "chosen" not in task


def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here; Debian's package `chromium` has it")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    return sync.sync_playwright(), {"executable_path": chromium, "args": flags}


def judge(page, presses: int) -> None:
    """Pick the "good" answer of so many pairs by keyboard."""
    for _ in range(presses):
        before = page.text_content("#count")
        side = "ArrowLeft" if "good" in page.text_content("#left") else "ArrowRight"
        page.keyboard.press(side)
        page.wait_for_function("before => document.getElementById('count').textContent !== before", arg=before)


def test_a_person_judges_twenty_pairs_by_keyboard_closes_the_page_midway_and_trains_on_them(
    candidates: str, tmp_path: Path
):
    playwright, launch = browser()
    out = tmp_path / "labels"
    first = Served(candidates, out)
    with playwright as p:
        chromium = p.chromium.launch(**launch)
        page = chromium.new_page()
        page.goto(first.link)
        page.fill("#name", "ann")
        page.keyboard.press("Enter")
        page.wait_for_selector("#desk:not([hidden])")
        judge(page, 8)
        page.close()
        first.stop()  # the server ends too; both come back
        second = Served(candidates, out)
        page = chromium.new_page()
        page.goto(second.link)
        page.fill("#name", "ann")
        page.keyboard.press("Enter")
        page.wait_for_selector("#desk:not([hidden])")
        assert page.text_content("#count") == "8 of 20"
        judge(page, 12)
        page.wait_for_selector("text=All pairs judged")
        assert page.title() == "Which answer is better?", "text from the data ran as markup"
        chromium.close()
    said = second.stop()
    assert "20 pairs" in said and len((out / "votes.jsonl").read_text().splitlines()) == 20
    pairs = read_pairs(str(out / "pairs.parquet")).rows.to_pylist()
    assert len(pairs) == 20 and all(r["chosen"][0]["content"].startswith("good") for r in pairs)
    from tests.fakes import random_model
    from training.dpo import DPOConfig, train

    config = DPOConfig(str(random_model()), str(out / "pairs.parquet"), str(tmp_path / "m"), steps=2, max_length=2048)
    assert train(config).fit.losses[0] == pytest.approx(0.6931, abs=1e-3)


def test_two_people_agree_tie_skip_and_change_their_mind(candidates: str, tmp_path: Path):
    desk = Desk(read_tasks(candidates), tmp_path / "out")
    ids = sorted(desk.listed)
    for name, picks in {"ann": ["first", "first", "tie", "skip"], "bob": ["first", "second", "first", "skip"]}.items():
        for pair, pick in zip(ids, picks, strict=False):
            desk.votes.add(Vote(f"{name}-{pair}", pair, name, pick))
    desk.votes.add(Vote("again", ids[0], "bob", "second"))
    made = desk.export()
    assert made.rows.num_rows == 1 and made.reasons() == {"not_judged": 16, "tie": 2, "skipped": 1}
    assert made.rows["chosen_score"].to_pylist() == [0.75]
    found = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert found["annotators"] == {"ann": 4, "bob": 4} and found["judged"] == 3 and found["alpha"] < 0


def test_agreement_is_krippendorffs_by_hand():
    """Two people, four pairs, one disagreement: nominal alpha = 1 - Do/De = 1 - (1/4) / (4·4·2/(8·7))."""
    picks = {"ann": ["first", "first", "second", "second"], "bob": ["first", "second", "second", "second"]}
    votes = [Vote(f"{n}{i}", str(i), n, p) for n, row in picks.items() for i, p in enumerate(row)]
    assert krippendorff_alpha(votes) == pytest.approx(1 - 0.25 / (3 * 5 * 2 / 56))
    assert krippendorff_alpha(votes[:4]) != krippendorff_alpha(votes[:4])  # one person: nothing to compare


def test_a_kill_in_the_middle_of_a_vote_loses_only_what_was_not_acknowledged(tmp_path: Path):
    votes = Votes(tmp_path)
    assert votes.add(Vote("v1", "p1", "ann", "first")) and not votes.add(Vote("v1", "p1", "ann", "first"))
    with votes.path.open("ab") as file:
        file.write(b'{"vote_id": "v2", "pa')
    again = Votes(tmp_path)
    assert list(again.listed) == ["v1"] and again.add(Vote("v2", "p2", "ann", "tie"))
    assert list(Votes(tmp_path).listed) == ["v1", "v2"]
    votes.path.write_bytes(b"rubbish\n" + votes.path.read_bytes())
    with pytest.raises(StorageError, match=r"votes\.jsonl:1"):
        Votes(tmp_path)


ARGILLA_2 = {
    "fields": {"prompt": "Hi", "response1": "good", "response2": "bad"},
    "responses": {"preference": [{"value": "response2", "user_id": "u1", "status": "submitted"}, {"value": "response1", "user_id": "u2", "status": "draft"}]},
}  # fmt: skip
ARGILLA_1 = {
    "fields": {"prompt": "Hi", "response-1": "good", "response-2": "bad"},
    "responses": [{"user_id": "u1", "status": "submitted", "values": {"ranking": {"value": [{"value": "response-1", "rank": 2}, {"value": "response-2", "rank": 1}]}}}],
}  # fmt: skip
LABEL_STUDIO = {
    "data": {"prompt": "Hi", "answer1": "good", "answer2": "bad"},
    "annotations": [
        {"completed_by": 1, "result": [{"type": "pairwise", "value": {"selected": "right"}}]},
        {
            "completed_by": {"id": 2},
            "was_cancelled": True,
            "result": [{"type": "pairwise", "value": {"selected": "left"}}],
        },
    ],
}


@pytest.mark.parametrize("record", [ARGILLA_2, ARGILLA_1, LABEL_STUDIO], ids=["argilla 2", "argilla 1", "label studio"])
def test_exports_of_other_tools_become_the_same_pairs(tmp_path: Path, record: dict):
    (tmp_path / "export.json").write_text(json.dumps([record]))
    pairs, votes = read_export(str(tmp_path / "export.json"))
    assert [(v.pick) for v in votes] == ["second"]
    (pair,) = decided(pairs, votes).rows.to_pylist()
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("bad", "good")


def test_the_command_imports_an_export_and_says_what_is_wrong_with_another(tmp_path: Path, capsys):
    from pipelines.cli import main

    (tmp_path / "export.json").write_text(json.dumps([LABEL_STUDIO]))
    assert main(["label", str(tmp_path / "export.json"), "--from-export", "--out", str(tmp_path / "o")]) == 0
    assert pq.read_table(tmp_path / "o" / "pairs.parquet").num_rows == 1
    (tmp_path / "other.json").write_text('[{"a": 1}]')
    assert main(["label", str(tmp_path / "other.json"), "--from-export", "--out", str(tmp_path / "o2")]) == 2
    assert "Argilla" in capsys.readouterr().err


def test_a_set_with_nothing_to_compare_is_one_clear_line(tmp_path: Path):
    (tmp_path / "one.jsonl").write_text(json.dumps({"prompt": "Hi", "completion": "alone"}) + "\n")
    with pytest.raises(InputError, match="two different answers"):
        read_tasks(str(tmp_path / "one.jsonl"))
