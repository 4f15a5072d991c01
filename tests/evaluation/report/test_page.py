"""The page holds what a run has measured and nothing else, whatever its texts say."""

import base64
import gzip
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Trained
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.running import settings
from dlmjoint.evaluation.telling.report import compare, report
from dlmjoint.evaluation.telling.report.examples import Browser
from dlmjoint.evaluation.telling.report.page import LIMIT, departing, marks, page
from dlmjoint.evaluation.telling.report.published import beside, curves
from dlmjoint.evaluation.telling.report.runs import Run
from dlmjoint.evaluation.telling.table import Cell, Column, Table, direction
from tests.evaluation.report.scenes import DECODERS, HOSTILE, N, tokenizer, write_run


class _Reader(HTMLParser):
    """Elements, texts and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self._open: str | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._open = dict(attrs).get("id") or "program"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is None:
            self.texts.append(data)
        else:
            self.scripts[self._open] = self.scripts.get(self._open, "") + data


@pytest.fixture(scope="module")
def html(scripted: Path) -> str:
    return page([Run.read(scripted)])


@pytest.fixture(scope="module")
def read(html: str) -> _Reader:
    return _Reader(html)


def test_the_page_asks_for_no_other_resource(html: str, read: _Reader) -> None:
    references = [
        value for _, a in read.tags for key, value in a.items() if key in ("src", "href", "action")
    ]
    assert references
    assert all(value is not None and value.startswith("#") for value in references)
    policies = [a["content"] for _, a in read.tags if a.get("http-equiv")]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html


def test_hostile_texts_stay_texts(read: _Reader) -> None:
    names = {name for name in read.scripts if not name.startswith("packed-")}
    assert names == {"index", "program"}
    assert "b" in {tag for tag, _ in read.tags}
    assert "i" not in {tag for tag, a in read.tags if "style" not in a}
    shown = "".join(read.texts)
    assert HOSTILE in shown
    assert "<b>&\"joint'-k4" in shown
    assert "{{ 7 * 7 }}" in shown


def test_every_example_can_be_unpacked(read: _Reader, scripted: Path) -> None:
    index = json.loads(read.scripts["index"])
    for number, task in enumerate(index["tasks"]):
        assert task["decoders"] == list(DECODERS)
        assert task["told"] == f"all {N} examples"
        for place, decoder in enumerate(task["decoders"]):
            packed = read.scripts[f"packed-{number}-{place}"]
            found = json.loads(gzip.decompress(base64.b64decode(packed)))
            path = scripted / "generations" / decoder / f"{task['name']}.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for one, line in zip(found, lines, strict=True):
                assert one["text"] == line["text"]
                assert [token["id"] for token in one["tokens"]] == line["tokens"]
                order = [column for step in one["steps"] for column in step["columns"]]
                assert order == line["order"]
                last = len(one["steps"]) - 1
                alive = [s["text"] for s in one["spans"] if s["born"] <= last < s["gone"]]
                assert "".join(alive) == tokenizer().decode(line["tokens"])


def test_ids_are_used_once_and_colours_are_the_pages(html: str, read: _Reader) -> None:
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids))
    plots = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert plots
    assert not [plot for plot in plots if re.search(r"#[0-9a-f]{6}\b", plot)]
    used = re.findall(r'href="#([^"]+)"', html)
    assert set(used) <= set(ids)


def test_every_point_says_what_it_is(read: _Reader) -> None:
    labels = [a["aria-label"] or "" for _, a in read.tags if a.get("class") == "point"]
    assert "marginals-k4: 0.600 (0.560–0.640), n = 9; 4.000 tokens per base forward" in labels
    assert "exact: 0.900 (0.860–0.940), n = 9; 1,000 tokens per second" in labels
    theirs = [label for label in labels if label.startswith("a: ADJUST")]
    assert any("Dream-7B" in label for label in theirs)


def test_what_is_measured_by_depth_is_one_plot(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    scores = json.loads((folder / "scores.json").read_text())
    for name, k in DECODERS.items():
        deep = {"low": 0.0, "high": 1.0, "n": N}
        found = {f"kl@{j}": deep | {"value": j * k / 100} for j in range(1, 4)}
        scores["decoders"][name]["tasks"]["free_text"] |= found
    (folder / "scores.json").write_text(json.dumps(scores))
    read = _Reader(page([Run.read(folder)]))
    labels = [a["aria-label"] or "" for _, a in read.tags if a.get("class") == "point"]
    mine = [label for label in labels if "token of its forward" in label]
    assert len(mine) == len(set(mine)) == 3 * len(DECODERS)
    assert "marginals-k4: 0.080 (0.000–1.000), n = 9; 2.000 token of its forward" in mine
    assert "KL (free text), by depth" in read.texts
    assert "kl@1" not in "".join(read.texts)


def test_examples_are_left_out_where_they_do_not_fit(scripted: Path, html: str) -> None:
    assert len(html.encode()) < LIMIT
    limit = len(html.encode()) + 280_000  # the reserve for the player is 300,000
    shorter = page([Run.read(scripted)], limit)
    assert len(shorter.encode()) <= limit
    told = [task["told"] for task in json.loads(_Reader(shorter).scripts["index"])["tasks"]]
    assert all(re.match(rf"[1-8] of {N} examples: the first", words) for words in told)


def test_a_page_without_room_for_any_example_says_so(scripted: Path) -> None:
    embedded = Browser([Run.read(scripted)]).embed(0)
    assert [task["told"] for task in embedded["tasks"]] == [f"0 of {N} examples: the first 0"] * 2


def test_the_examples_on_which_grades_differ_are_among_those_shown(scripted: Path) -> None:
    # Grades differ in examples 1, 2 and 3; of four, half are kept for those behind the first two.
    questions, free_text = Browser([Run.read(scripted)], most=4).embed(LIMIT)["tasks"]
    assert questions["ids"] == [0, 1, 2, 3]
    assert questions["told"] == (
        f"4 of {N} examples: the first 2 and 2 of the 2 further ones on which grades differ"
    )
    assert free_text["ids"] == [0, 1, 2, 3]
    assert free_text["told"] == f"4 of {N} examples: the first 4"


def test_a_single_decoders_mistakes_are_among_those_shown(tmp_path: Path) -> None:
    run = Run.read(write_run(tmp_path, decoders={"marginals-k4": 4}))
    questions, _ = Browser([run], most=4).embed(LIMIT)["tasks"]
    assert questions["told"].endswith("the first 2 and 2 of the 2 further ones that are wrong")


def test_the_best_of_a_column_is_marked_the_ceiling_never() -> None:
    columns = [Column("quality", "quality", "task", 1), Column("nll", "nll", "task", -1)]
    cells = [
        [Cell(0.9, 0.8, 1.0), Cell(1.0, 0.9, 1.1)],
        [Cell(0.7, 0.6, 0.82), Cell(2.0, 1.9, 2.1)],
        [Cell(0.5, 0.4, 0.6), None],
        [Cell(1.0, 1.0, 1.0), Cell(0.1, 0.1, 0.1)],
    ]
    found = marks(Table(columns, ["a", "b", "c", "(ceiling)"], cells))
    assert [[mark.best for mark in row] for row in found] == [
        [True, True],
        [False, False],
        [False, False],
        [False, False],
    ]
    assert [row[0].tied for row in found] == [False, True, False, False]


def test_less_is_better_of_what_measures_loss() -> None:
    lower = ["nll", "trajectory_kl", "depth_kl_2", "word_perplexity", "total_variation"]
    higher = ["accuracy", "mauve", "agreement_item", "knowledge"]
    assert [direction(name) for name in lower + higher] == [-1] * 5 + [1] * 4


def test_policies_are_spelled_by_their_departures() -> None:
    described = settings.describe(Policy(4, refine=Trained("folder"), block_length=8))
    expected = "Policy(commits_per_forward=4, refine=Trained(sampler=folder), block_length=8)"
    assert departing(described) == expected
    assert departing(settings.describe(Policy())) == "Policy()"


def test_the_papers_numbers_are_sourced_and_of_known_quantities() -> None:
    for curve in curves():
        assert "arXiv" in curve.source
        assert curve.place
        assert curve.setting
        assert curve.x in ("tokens_per_forward", "speedup")
        for points in curve.points.values():
            assert all(x >= 1 for x, _ in points)
            if curve.metric in ("accuracy", "mauve"):
                assert all(0 <= y <= 1 for _, y in points)
    (mauve,) = beside("unconditional", "mauve", "tokens_per_forward")
    assert [4, 0.87] in mauve.points["ADJUST"]
    assert [4, 0.31] in mauve.points["parallel"]


def test_a_task_is_drawn_beside_its_own_benchmark_or_the_usual_one() -> None:
    arc = beside("arc_challenge", "accuracy", "tokens_per_forward")
    assert {curve.task for curve in arc} == {"arc"}
    assert {curve.task for curve in beside("word_problems", "accuracy", "speedup")} == {"gsm8k"}
    assert beside("word_problems", "answered", "tokens_per_forward") == []


def test_a_report_has_its_parts(scripted: Path, html: str, tmp_path: Path) -> None:
    run = tmp_path / scripted.name
    shutil.copytree(scripted, run)
    assert report(run).row_count == len(DECODERS) + 1  # and the ceiling
    assert (run / "quality.png").stat().st_size > 1000
    table = (run / "table.md").read_text().splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert (run / "report.html").read_text() == html
    report(run)
    assert (run / "report.html").read_text() == html


def test_runs_are_compared_in_one_page_that_says_what_differs(
    scripted: Path, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "other", n=7, seed=1)
    table = compare([scripted, other], tmp_path / "both")
    assert "scripted/exact" in table.names
    assert "other/(ceiling)" in table.names
    words = " ".join(
        "".join(_Reader((tmp_path / "both" / "report.html").read_text()).texts).split()
    )
    assert "reference_seed: 1000 in scripted, 1001 in other" in words
    assert "base:" in words
    assert "task questions: n not the same in scripted and other" in words
    assert "other/exact" in (tmp_path / "both" / "table.md").read_text()
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare([])


def test_verdicts_are_told_as_long_as_they_are_of_these_scores(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    verdict = {"decoder": "exact", "metric": "accuracy", "task": "questions", "over": None, "n": N}
    band = {"published": 0.8125, "low": 0.75, "high": 0.875, "measured": 0.9, "inside": False}
    scores = json.loads((folder / "scores.json").read_text())
    told = {"source": "a <b>card</b>", "verdicts": [verdict | band]}
    path = folder / "verdicts.json"
    path.write_text(json.dumps(told | {"provenance": scores["provenance"]}))
    words = " ".join(" ".join(_Reader(page([Run.read(folder)])).texts).split())
    assert "0 of 1 are inside their bands. Published in: a <b>card</b>." in words
    assert "questions: accuracy 0.812 0.750–0.875 0.900 9 outside" in words
    path.write_text(json.dumps(told | {"provenance": {"created": "before"}}))
    assert "inside their bands" not in page([Run.read(folder)])


def test_an_unscored_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="score the run first"):
        report(tmp_path)


def test_generations_that_are_gone_are_missed(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    path = run / "generations" / "exact" / "questions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=f"{N - 1} of {N} generations"):
        report(run)
