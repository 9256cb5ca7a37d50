"""The audit's page, Markdown, files and comparison: they say what was found, hold against hostile rows, and fit a phone."""

import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ET
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.audit import Audit, audit
from curation.audit.baseline import compare, read_baseline
from curation.audit.corpus import Corpus
from curation.audit.examples import examples
from curation.audit.overview import Match
from curation.audit.page import STYLE, page
from curation.audit.probe import Residual
from curation.audit.reading import corpus_of
from curation.audit.report import markdown, summary, visible, write
from curation.audit.sentences import meaning
from curation.audit.visible import exact, plain
from curation.errors import InputError
from curation.schema import DPO, conform
from pipelines.cli import main

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lm", "rn", "st", "nd")]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u202e|`[x](http://evil.example) @all ]]>"


def random_sides(n: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)

    def text() -> str:
        return " ".join(rng.choice(WORDS, max(3, rng.poisson(25)), p=weights / weights.sum())) + "."

    return [(text(), text()) for _ in range(n)]


def rows_of(sides: list[tuple[str, str]], prompt: str = "p", ids: str = "{:05d}") -> pa.Table:
    """Rows of schema.DPO."""
    turns = [[[{"role": "assistant", "content": text}] for text in column] for column in zip(*sides, strict=True)]
    names = [f"{prompt}{i}" for i in range(len(sides))]
    columns = {
        "pair_id": [ids.format(i) for i in range(len(sides))], "prompt_id": names,
        "prompt": [[{"role": "user", "content": n}] for n in names], "chosen": turns[0], "rejected": turns[1],
    }  # fmt: skip
    return conform(pa.table(columns, schema=pa.schema([DPO.field(n) for n in columns])), DPO)


def planted(n: int = 240, every: int = 3, seed: int = 0, word: str = "indeed") -> list[tuple[str, str]]:
    return [(f"{a} {word}" if i % every else a, b) for i, (a, b) in enumerate(random_sides(n, seed))]


@lru_cache
def made(kind: str) -> tuple[Audit, Corpus]:
    """One audit for many tests."""
    sides = {
        "planted": planted(),
        "clean": random_sides(240, 9),
        "hostile": [(f"{HOSTILE} {a}\u200b\n", b) for a, b in random_sides(80)],
    }[kind]
    corpus = corpus_of(rows_of(sides, prompt=HOSTILE if kind == "hostile" else "p"))
    return audit(corpus), corpus


def body(html: str) -> ET.Element:
    """The page as a tree: that it parses as XML says that every tag is closed and every character escaped."""
    assert html.startswith("<!doctype html>\n")
    return ET.fromstring(html.removeprefix("<!doctype html>\n"))


def words(tree: ET.Element) -> str:
    return " ".join("".join(tree.itertext()).split())


def many(done: Audit, n: int, text: str) -> Audit:
    """The same audit with n findings of such a text, whose members are as long."""
    f = done.findings[0]
    long = text * 40
    some = tuple(dataclasses.replace(f, feature=f"{i} {long}", members=(long,) * 30) for i in range(n))
    return dataclasses.replace(done, findings=some, reasons=(long,) * n, strata=long, not_tested=(long,) * 3)


@pytest.mark.parametrize("kind", ["planted", "clean", "hostile"])
def test_the_page_is_whole_and_safe_and_says_verdict_and_limit_first(kind: str):
    done, corpus = made(kind)
    html = page(done, corpus)
    tree = body(html)
    said = words(tree.find("body"))
    assert done.verdict in said[:80] and said.index("What could have been missed") < said.index("If you had to guess")
    order = ["What a model would learn", "If you had to guess", "What answers alone give away", "Would edits help?",
             "All findings at a glance", "Length", "Findings", "Numbers", "What could not be tested", "What each number means"]  # fmt: skip
    assert [h.text for h in tree.iter("h2") if h.text in order] == order
    assert not set(html) & {"\u202e", "\u200b", "\x00"} and "default-src 'none'" in html
    assert {e.tag for e in tree.iter()} <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "div", "p", "h1",
        "h2", "h3", "h4", "a", "span", "small", "b", "i", "code", "mark", "ul", "li", "dl", "dt", "dd", "table", "thead",
        "tbody", "tr", "th", "td", "details", "summary", "svg", "g", "path", "rect", "circle", "text",
    }  # fmt: skip


def test_no_attribute_holds_text_of_the_data():
    done, corpus = made("hostile")
    allowed = re.compile(r"[A-Za-z0-9 .,:;=/+#'_-]*")
    for element in body(page(done, corpus)).find("body").iter():
        for name, value in element.attrib.items():
            assert name not in ("style", "src", "srcset", "onclick") and not name.startswith("on")
            assert allowed.fullmatch(value) and "alert" not in value and "evil" not in value


def test_headings_do_not_skip_and_tables_and_drawings_are_named():
    done, corpus = made("planted")
    models = tuple(Match(f"m{i}", f"m{j}", 30 - i, 4 + j) for i in range(5) for j in range(i + 1, 5))
    tree = body(page(dataclasses.replace(done, models=models), corpus))
    levels = [int(e.tag[1]) for e in tree.iter() if re.fullmatch(r"h[1-6]", e.tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert all(e.get("scope") in ("row", "col") for e in tree.iter("th"))
    for drawing in tree.iter("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and drawing.find("title").text)
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids)) and {a.get("href") for a in tree.iter("a")} <= {f"#{i}" for i in ids}
    assert not [p for p in tree.iter("p") for e in p if e.tag in ("p", "div", "ul", "table", "details", "section")]
    assert len(next(t for t in tree.iter("table") if t.get("class") == "heat").findall(".//tbody/tr")) == 5


def contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_all_text_stands_out_from_its_ground_by_day_and_by_night():
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    ]
    assert len(themes) == 3
    for theme in themes[:2]:
        for ink in ("ink", "soft", "block", "high", "warn", "info", "pass", "chosen", "rejected"):
            assert all(contrast(theme[ink], theme[ground]) >= 4.5 for ground in ("page", "card", "code")), ink
        assert contrast(theme["ink"], theme["mark"]) >= 4.5


def test_thousands_of_hostile_findings_stay_a_page_that_a_phone_can_load():
    done, corpus = made("hostile")
    for text in ("\U000e0041'", "<&\"'>", "\u0301", "当", "\n \t\r"):
        grave = many(done, 3000, text)
        html = page(grave, corpus)
        assert len(html.encode()) < 1_500_000
        body(html)
        assert "3,000" in html and len(markdown(grave).encode()) < 1_000_000 and len(summary(grave)) < 20_000


def test_nothing_unseen_stays_unseen():
    assert visible("a\n\t\r") == "a⏎⇥[CR]" and visible("  ") == "␣␣" and visible("a b") == "a b"
    assert visible("\u202e\u200d\ud800\x00") == "[RIGHT-TO-LEFT OVERRIDE][ZERO WIDTH JOINER][U+D800][U+0000]"
    assert exact("* ") == "*␣" and exact(" \n") == "␣⏎" and len(exact("x" * 10**6)) <= 160
    for c in map(chr, range(0x110000)):
        if not c.isprintable():
            assert visible(f"a{c}")[1:] != c


def test_rows_are_shown_where_the_finding_stands_in_them():
    done, corpus = made("planted")
    (at, f), *_ = [
        (i, f) for i, f in enumerate(done.findings) if "indeed" in (f.feature, *f.members) and f.purity > 0.9
    ]
    pro, contra = examples(done.findings, corpus)[at]
    assert (
        len(pro) == 5
        and not contra
        and [e.pair_id for e in pro] == [i for i in f.row_ids if i in {e.pair_id for e in pro}]
    )
    for example in pro:
        asked, said = example.quotes
        assert asked.where == "prompt" and said.where == "chosen" and "indeed" in said.parts[1]
        assert sum(map(len, said.parts)) < 300
    tree = body(page(done, corpus))
    assert sum("indeed" in (m.text or "") for m in tree.iter("mark")) >= 5


@pytest.mark.parametrize(
    ("family", "feature", "text", "marked"),
    [
        ("word", "the", "other THE thing", "THE"),
        ("closer", "end.", "end. and end.", "end."),
        ("whitespace", "\n", "\nsaid\n", "⏎"),
        ("phrase", "one two", "one\n  two", "one⏎  two"),
        ("character", "\u200d", "a\u200db", "[ZERO WIDTH JOINER]"),
        ("word", "当", "不当然", "当"),
        ("lexicon", "refusal", "Well, I cannot do it", "I cannot"),
        ("opener", "Sure", "nothing of the kind", None),
        ("number", "more words", "a b c", None),
    ],
)
def test_a_span_is_found_as_a_reader_would(family: str, feature: str, text: str, marked: str | None):
    done, _ = made("planted")
    corpus = corpus_of(rows_of([(text, "something else")]))
    f = dataclasses.replace(
        done.findings[0], family=family, feature=feature, members=(), purity=1.0, examples=(0,), row_ids=("a",),
        counter_examples=(), counter_row_ids=(),
    )  # fmt: skip
    _, *said = examples([f], corpus)[0][0][0].quotes
    assert [q.where for q in said] == (["chosen"] if marked else ["chosen", "rejected"])
    assert (said[0].parts[1] if len(said[0].parts) > 1 else None) == marked


def test_very_long_lines_are_cut_around_the_span():
    done, _ = made("planted")
    corpus = corpus_of(rows_of([("x" * 10**6 + " needle " + "y" * 10**5, "b")]))
    f = dataclasses.replace(
        done.findings[0], family="word", feature="needle", members=(), purity=1.0, examples=(0,), row_ids=("a",),
        counter_examples=(), counter_row_ids=(),
    )  # fmt: skip
    f = dataclasses.replace(f, family="closer")
    (example,) = examples([f], corpus)[0][0]
    assert example.quotes[1].parts[1] == "needle" and sum(map(len, example.quotes[1].parts)) < 200


def test_redacted_files_hold_no_text_of_rows_but_the_findings(tmp_path: Path):
    sides = [(f"{a} indeed", b) for a, b in random_sides(120, 3)]
    corpus = corpus_of(rows_of(sides, prompt="secret question ", ids="name of person {}"))
    done = audit(corpus)
    files = write(done, corpus, tmp_path, redact=True)
    known = {w for f in done.findings for t in (f.feature, *f.members) for w in re.findall(r"\w+", t)}
    text = "".join(p.read_text() for p in files if p.suffix != ".parquet") + str(pq.read_table(files[3]).to_pylist())
    grams = {g for a, b in sides for t in (a, b) for g in re.findall(r"(?=\b(\w+ \w+ \w+)\b)", t)}
    allowed = " ".join(t for f in done.findings for t in (f.feature, *f.members))
    assert not [g for g in grams if g in text and g not in allowed and not set(g.split()) <= known]
    assert "secret question" not in text and "name of person" not in text and "--redact" in text
    assert pq.read_table(files[3])["pair_id"][0].as_py().startswith("sha256:")
    assert "name of person" in "".join(p.read_text() for p in write(done, corpus, tmp_path)[:2])


def test_files_are_the_same_bytes_whatever_the_order_of_rows(tmp_path: Path):
    rows = rows_of(planted(160))
    order = np.random.default_rng(3).permutation(rows.num_rows)
    for name, table in (("a", rows), ("b", rows.take(pa.array(order)))):
        corpus = corpus_of(table)
        write(audit(corpus), corpus, tmp_path / name)
    for name in ("audit.html", "audit.json", "audit.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_audit_json_has_what_is_promised_of_it(tmp_path: Path):
    done, corpus = made("planted")
    write(done, corpus, tmp_path)
    found = json.loads((tmp_path / "audit.json").read_bytes(), parse_constant=lambda c: pytest.fail(c))
    assert {"verdict", "pairs", "prompts", "detection_limit", "probe", "rules", "residual", "findings"} <= set(found)
    assert all({"accuracy", "bits"} <= set(r) for r in found["probe"].values())
    names = {"feature", "family", "chosen", "rejected", "coverage", "purity", "pull", "bits", "z", "z_length_adjusted",
             "p_adjusted", "severity", "members", "row_ids"}  # fmt: skip
    assert found["findings"] and all(names <= set(f) and "examples" not in f for f in found["findings"])
    assert pq.read_table(tmp_path / "flagged.parquet").num_rows == done.rows.num_rows


def test_markdown_and_terminal_hold_no_markup_and_no_control_characters():
    done, _ = made("hostile")
    said, shown = markdown(done), summary(done)
    assert "<script" not in said and "](http" not in said and "://evil" not in said and "@all" not in said
    assert not [c for c in shown if not c.isprintable() and c != "\n"]
    rows = [line for line in said.splitlines() if line.startswith("| ")]
    assert (
        all(line.count("|") == line.replace("&#124;", "").count("|") for line in rows)
        and len({r.count("|") for r in rows}) <= 4
    )
    assert "could have shown" in shown and shown.startswith("BLOCK") and plain("a|b") == "a&#124;b"


def test_the_residual_curve_says_what_to_do():
    def curve(*bits: float, last: int = 320) -> list[Residual]:
        return [Residual(n, 0.5, b) for n, b in zip((0, 1, 5, 20, 80, last), bits, strict=True)]

    assert meaning(curve(0.5, 0.2, 0.1, 0.1, 0.1, 0.1))[0] == "steep"
    assert meaning(curve(0.5, 0.5, 0.5, 0.5, 0.45, 0.4))[0] == "flat"
    assert meaning(curve(0.5, 0.5, 0.5, 0.4, 0.3, 0.2))[0] == "between"
    assert meaning(curve(0.05, 0.05, 0.05, 0.05, 0.05, 0.05))[0] == "weak"
    assert meaning(curve(0.0, 0.0, 0.0, 0.0, 0.0, 0.0))[0] == "nothing"
    assert meaning([Residual(0, 0.6, 0.2), Residual(3, 0.6, 0.2)])[0] == "faint"


def earlier(done: Audit, **changes: object) -> dict:
    return json.loads(json.dumps({**done.as_dict(), **changes}))


def test_a_set_is_no_worse_than_itself_and_worse_than_a_clean_one():
    done, clean = made("planted")[0], made("clean")[0]
    same = compare(done, earlier(done))
    assert not same.worse and not same.new and not same.graver and not same.gone and not same.probe and same.same
    worse = compare(done, earlier(clean))
    assert worse.worse and worse.new and worse.probe and worse.verdict == ("pass", "block")
    better = compare(clean, earlier(done))
    assert not better.worse and better.gone and not better.new


def grown(done: Audit, by: str) -> dict:
    found = earlier(done)
    for f in found["findings"]:
        if by == "severity":
            f["severity"] = "info"
        elif by == "pull":
            f["pull"], f["pull_interval"] = 0.01 * f["pull"], [0.005 * f["pull"], 0.015 * f["pull"]]
        elif by == "noise":
            f["pull"] *= 0.97
        elif by == "side":
            f["pull"], f["pull_interval"] = -f["pull"], [-v for v in f["pull_interval"]]
        elif by == "name":
            f["feature"], f["members"] = f"other {f['feature']}", [f["feature"]]
    if by == "bits":
        found["probe"]["ngrams"]["bits"] -= 0.5
    return found


@pytest.mark.parametrize(
    ("by", "what"),
    [("severity", "graver"), ("pull", "graver"), ("noise", ""), ("side", "new"), ("name", ""), ("bits", "probe")],
)
def test_what_grew_is_named_and_what_is_known_is_accepted(by: str, what: str):
    done = made("planted")[0]
    found = compare(done, grown(done, by))
    assert {name for name in ("new", "graver", "probe") if getattr(found, name)} == ({what} if what else set())
    assert found.worse == bool(what)
    for said in (summary(done, found), markdown(done, found), page(done, made("planted")[1], baseline=found)):
        assert ("orse than" in said) and ("No worse" in said or "no worse" in said) != found.worse


BROKEN = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"verdict": "fine"}', b'{"verdict": ["pass"], "pairs": 1}',
    b'{"verdict": "pass", "pairs": -1}', b'{"verdict": "pass", "pairs": 1e999}', b'{"verdict": "pass", "pairs": true}',
    b'{"verdict": "pass", "pairs": 3, "probe": [], "findings": []}', b'{"verdict": "pass", "pairs": 3, "probe": {}, "findings": {}}',
    b'{"verdict": "pass", "pairs": 3, "probe": {"a": {"bits": NaN}}, "findings": []}',
    b'{"verdict": "pass", "pairs": 3, "probe": {}, "findings": [1]}',
    b'{"verdict": "pass", "pairs": 3, "probe": {}, "findings": [{"feature": 1}]}',
    b'{"verdict": "pass", "pairs": 3, "probe": {}, "findings": [{"feature": "a", "family": "word", "severity": "dire", "pull": 0}]}',
    b'{"verdict": "pass", "pairs": 3, "probe": {}, "findings": [{"feature": "a", "family": "word", "severity": "info", "pull": 0, "members": [3]}]}',
    b'{"verdict": "pass", "pairs": ' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_audit_json_is_refused_in_one_line(content: bytes, tmp_path: Path):
    (tmp_path / "audit.json").write_bytes(content)
    with pytest.raises(InputError) as e:
        read_baseline(str(tmp_path / "audit.json"))
    assert "\n" not in str(e.value) and len(str(e.value)) < 600
    with pytest.raises(InputError):
        read_baseline(str(tmp_path / "nowhere.json"))


def test_hostile_names_of_an_earlier_audit_stay_text():
    done, corpus = made("planted")
    found = earlier(done)
    one = {"feature": "\ud800" + HOSTILE, "family": HOSTILE, "severity": "block", "pull": 0.5}
    compared = compare(done, {**found, "findings": [*found["findings"], one]})
    assert not compared.worse and len(compared.gone) == 1
    for said in (page(done, corpus, baseline=compared), markdown(done, compared), summary(done, compared)):
        said.encode()
        assert "\u202e" not in said and ("<script" not in said or said.startswith("BLOCK"))
    body(page(done, corpus, baseline=compared))


def test_the_command_with_a_baseline_accepts_what_was_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def file(name: str, sides: list[tuple[str, str]]) -> str:
        columns = {
            "prompt": [f"q{i}" for i in range(len(sides))],
            "chosen": [a for a, _ in sides],
            "rejected": [b for _, b in sides],
        }
        pq.write_table(pa.table(columns), tmp_path / name)
        return str(tmp_path / name)

    known, worse = file("known.parquet", planted()), file("worse.parquet", [(f"Sure! {a}", b) for a, b in planted()])
    out = ["--out", str(tmp_path / "out")]
    assert main(["audit", known, *out]) == 1
    baseline = ["--baseline", str(shutil.copy(tmp_path / "out/audit.json", tmp_path / "before.json"))]
    assert main(["audit", known, *out, *baseline]) == 0
    assert "no worse than before" in capsys.readouterr().out
    assert main(["audit", known, *out, *baseline, "--fail-on", "block"]) == 1
    assert main(["audit", worse, *out, *baseline]) == 1
    assert "Sure" in capsys.readouterr().out and "Worse than" in (tmp_path / "out/audit.md").read_text()
    assert main(["audit", worse, *out, "--baseline", worse]) == 2


def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here; Debian's package `chromium` has it")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    return sync.sync_playwright(), {"executable_path": chromium, "args": flags}


@pytest.mark.parametrize("kind", ["planted", "hostile"])
def test_on_a_phone_nothing_runs_off_the_side_and_paper_takes_it(kind: str, tmp_path: Path):
    playwright, launch = browser()
    done, corpus = made(kind)
    models = tuple(
        Match(f"a-model-with-a-long-name-{i}", f"a-model-with-a-long-name-{j}", 30, 4)
        for i in range(12)
        for j in range(i + 1, 12)
    )
    done = dataclasses.replace(many(done, 70, HOSTILE) if kind == "hostile" else done, models=models)
    write(done, corpus, tmp_path, baseline=compare(done, earlier(made("clean")[0])))
    with playwright as p:
        chromium = p.chromium.launch(**launch)
        for scheme, width in (("light", 360), ("dark", 1280)):
            shown = chromium.new_page(viewport={"width": width, "height": 740}, color_scheme=scheme)
            said: list[str] = []
            shown.on("console", lambda message, said=said: said.append(message.text))
            shown.on("pageerror", lambda error, said=said: said.append(str(error)))
            shown.on(
                "request",
                lambda request, said=said: None if request.url.startswith("file:") else said.append(request.url),
            )
            shown.goto((tmp_path / "audit.html").as_uri())
            shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert shown.evaluate("document.documentElement.scrollWidth") == width
            assert shown.is_visible("h1") and shown.is_visible("text=What could have been missed") and not said
            assert shown.title() == f"Shortcut audit: {done.verdict}", "text from the data ran as markup"
        colours = shown.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        assert colours == ["rgb(21, 23, 26)", "rgb(232, 230, 225)"]
        shown.pdf(path=str(tmp_path / "audit.pdf"), format="A4")
        chromium.close()
    paper = (tmp_path / "audit.pdf").read_bytes()
    assert paper.startswith(b"%PDF") and len(paper) > 20_000
