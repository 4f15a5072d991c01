"""The reports of a scored run: a table for the terminal, a picture, a page."""

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from rich.table import Table as RichTable

from dlmjoint.errors import DataError
from dlmjoint.evaluation.plot import draw_quality
from dlmjoint.evaluation.records import Generation
from dlmjoint.evaluation.table import COSTS, DETAILS, table_of
from dlmjoint.provenance import write_text

SAMPLES = 3
"""Texts shown of every decoder and task."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #68737d; --line: #dde2e6;
        --paper: #fff; --tint: #f5f7f9; --mark: #0b6e99; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8eb; --soft: #95a0a9; --line: #343b42; --paper: #15191d; --tint: #1d2227;
          --mark: #6cb8da; } }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 72rem; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: .95rem; margin: 1.25rem 0 .5rem; color: var(--mark); }
p.note, small { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .5rem .75rem; border-bottom: 1px solid var(--line); text-align: right;
         vertical-align: top; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: .8rem; white-space: normal; }
tbody th, thead th:first-child { text-align: left; font-weight: 600; }
tbody tr:hover { background: var(--tint); }
td small { display: block; font-size: .75rem; }
img { max-width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 8px; }
pre { background: var(--tint); border-radius: 8px; padding: .75rem 1rem; overflow-x: auto;
      font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; margin: .5rem 0; }
details { margin: .75rem 0; } summary { cursor: pointer; font-weight: 600; }
"""


def report(run_dir: Path) -> RichTable:
    """Write `quality.png`, `table.md` and `report.html` of a scored run; return the table for the
    terminal.

    Raises DataError if the run was not scored.
    """
    scores = read_scores(run_dir)
    picture = run_dir / "quality.png"
    drawn = draw_quality(scores, picture)
    write_text(run_dir / "table.md", table_of({"": scores}, costs=COSTS).markdown())
    write_text(run_dir / "report.html", _page(run_dir, scores, picture if drawn else None))
    return table_of({"": scores}, leave_out=DETAILS).rich()


def read_scores(run_dir: Path) -> dict[str, Any]:
    """The content of a run's scores.json. Raises DataError if there is none, or half of one."""
    path = run_dir / "scores.json"
    if not path.exists():
        raise DataError(f"{path} does not exist: score the run first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def _page(run_dir: Path, scores: Mapping[str, Any], picture: Path | None) -> str:
    base = scores["provenance"]["base"]
    parts = [
        f"<h1>{escape(run_dir.resolve().name)}</h1>",
        f'<p class="note">base {escape(base["name"])} (weights {base["fingerprint"]}), '
        f"{escape(scores['provenance']['created'])}, {escape(scores['provenance']['hardware'])}</p>",
        '<h2>Scores</h2><p class="note">Small print: 95 % intervals. NLL and trajectory KL in nats '
        "per token, lower is better; the ceiling is a second exact sample.</p>",
        f'<div class="scroll">{table_of({"": scores}, costs=COSTS).html()}</div>',
        "" if picture is None else f"<h2>Quality and speed</h2>{_image(picture)}",
        f"<h2>Samples</h2>{_samples(run_dir, scores)}",
        "<h2>Configuration</h2>",
        _folded("Decoders", {name: p["policy"] for name, p in scores["decoders"].items()}),
        _folded("Cost", {name: part["cost"] for name, part in scores["decoders"].items()}),
        _folded("Tasks, versions, hardware", scores["provenance"]),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(run_dir.resolve().name)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="quality against tokens per base forward" src="data:image/png;base64,{data}">'


def _samples(run_dir: Path, scores: Mapping[str, Any]) -> str:
    parts = []
    for decoder, content in scores["decoders"].items():
        parts.append(f"<h3>{escape(decoder)}</h3>")
        for task in content["tasks"]:
            path = run_dir / "generations" / decoder / f"{task}.jsonl"
            texts = _first_texts(path)
            body = "".join(f"<pre>{escape(text)}</pre>" for text in texts)
            parts.append(f"<details><summary>{escape(task)}</summary>{body}</details>")
    return "".join(parts)


def _first_texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        lines = [line for line, _ in zip(file, range(SAMPLES), strict=False)]
    return [Generation.from_json(json.loads(line)).text for line in lines]


def _folded(title: str, content: object) -> str:
    text = escape(json.dumps(content, indent=1, ensure_ascii=False))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"
