"""`thresher label`: open the page, or turn the votes there are (ours, Argilla's, Label Studio's) into pairs."""

import json
from pathlib import Path

from pipelines.config import OneLineParser


def label_command(words: list[str]) -> int:
    """Parse and run one `thresher label` line."""
    parser = OneLineParser(
        prog="thresher label", description="A person picks the better of two answers, in the browser."
    )
    parser.add_argument(
        "candidates", metavar="CANDIDATES", help="candidates (two different answers of a prompt) or pairs"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where votes.jsonl, pairs.parquet and agreement.json go"
    )
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="on 127.0.0.1 (default: 8765)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of answers and sides")
    parser.add_argument("--export", action="store_true", help="write pairs from the votes so far and leave")
    parser.add_argument("--from-export", action="store_true", help="CANDIDATES is an Argilla or Label Studio export")
    given = parser.parse_args(words)
    from curation.label import Desk, read_tasks, serve
    from curation.label_exports import read_export

    out = Path(given.out)
    if given.from_export:
        pairs, votes = read_export(given.candidates)
        desk = Desk(pairs, out, given.seed)
        for vote in votes:
            desk.votes.add(vote)
    else:
        desk = Desk(read_tasks(given.candidates, given.seed), out, given.seed)
        if not given.export:
            serve(desk, given.port)
    made = desk.export()
    print(f"{made.rows.num_rows} pairs  {out / 'pairs.parquet'}\n{(out / 'agreement.json').read_text().strip()}")
    if made.rows.num_rows == 0 and desk.votes.listed:
        print(f"no pair was decided: {json.dumps(made.reasons())}")
    return 0
