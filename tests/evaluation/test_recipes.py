"""Recipes: what a run must come within, and what is said of a run."""

import json
import re
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from dlmjoint import cli
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation import recipes
from dlmjoint.evaluation.metrics.intervals import share
from dlmjoint.evaluation.recipes import find
from dlmjoint.evaluation.telling import expected as bands
from dlmjoint.evaluation.telling.expected import Expected, Numbers, expected_of, judge
from tests.conftest import CHECKPOINTS, GOLDEN

ROOT = Path(__file__).parents[2]
PAPERS = sorted((ROOT / "configs/eval/papers").glob("*.yaml"))
RUN = """
base: {base}
run_dir: {folder}/run
decoders: {{exact: {{}}, marginals-k2: {{commits_per_forward: 2}}}}
tasks:
  - class_path: dlmjoint.evaluation.tasks.word_problems.WordProblems
    init_args: {{n: 4, max_new_tokens: 4}}
"""
EXPECTED = """
expected:
  source: nobody
  hardware: none to speak of
  numbers:
    - {metric: accuracy, task: word_problems, why: random weights, slack: 0.1,
       rows: {exact: 0.0, marginals-k2: 0.9}}
    - {metric: tokens_per_forward, over: exact, why: arithmetic, slack: 0.01,
       rows: {marginals-k2: 2.0}}
"""


def _numbers(**given: Any) -> Numbers:
    settings: dict[str, Any] = {"metric": "accuracy", "task": "t", "why": "because", **given}
    return Numbers(**settings)


def _row(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def _scores(**values: float) -> dict[str, Any]:
    """A scores.json of 100 examples per decoder."""
    score = {"low": 0.0, "high": 1.0, "n": 100}
    return {
        "decoders": {
            name.replace("_", "-"): {
                "tasks": {"t": {"accuracy": {"value": value, **score}}},
                "cost": {"tokens_per_second": 100 * value},
            }
            for name, value in values.items()
        },
        "provenance": {"hardware": "a machine"},
    }


def test_a_band_is_the_interval_of_the_difference_of_two_runs() -> None:
    score = share([True] * 213 + [False] * 37)
    low, high = _numbers(rows={"a": score.value}, n=250).band("a")
    assert score.value - low == pytest.approx(sqrt(2) * (score.value - score.low))
    assert high - score.value == pytest.approx(sqrt(2) * (score.high - score.value))


def test_a_published_interval_goes_before_wilsons() -> None:
    numbers = _numbers(rows={"a": _row(0.5, 0.45, 0.6)}, n=250, slack=0.01)
    assert numbers.band("a") == pytest.approx((0.5 - sqrt(2) * 0.05 - 0.01, 0.51 + sqrt(2) * 0.1))


def test_a_smaller_run_may_be_further_away() -> None:
    numbers = _numbers(rows={"a": 0.5}, n=100)
    arms = [0.5 - numbers.band("a", n)[0] for n in (400, 100, 25)]
    assert arms == sorted(arms)
    assert arms[2] / arms[1] == pytest.approx(sqrt(5) / sqrt(2))


def test_without_n_and_interval_the_slack_is_the_band() -> None:
    assert _numbers(rows={"a": 0.76}, slack=0.08).band("a", 1000) == pytest.approx((0.68, 0.84))


@pytest.mark.parametrize(
    "given",
    [
        {"rows": {"a": 0.5}},
        {"rows": {"a": 0.5}, "slack": -1.0},
        {"rows": {"a": 0.5}, "n": 0},
        {"rows": {"a": 52.0}, "n": 250},
        {"rows": {"a": _row(0.5, 0.5, 0.6)}},
        {"rows": {"a": {"value": 0.5, "low": 0.4}}, "n": 250},
        {"rows": {"a": {"value": 0.5, "hihg": 0.6}}, "n": 250},
        {"rows": {"a": {"low": 0.4, "high": 0.6}}, "n": 250},
    ],
)
def test_a_band_without_width_or_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        _numbers(**given)


def test_a_verdict_is_inside_outside_or_not_measured() -> None:
    expected = Expected(
        "x", "y", [_numbers(rows={"a": 0.5, "b": 0.5, "c": 0.5}, n=100), _numbers(rows={"a": 0.9}, task=None, metric="tokens_per_second", over="b", slack=0.1)]
    )  # fmt: skip
    found = judge(expected, _scores(a=0.55, b=0.9))
    assert [one.word for one in found] == ["inside", "OUTSIDE", "not measured", "OUTSIDE"]
    assert found[3].measured == pytest.approx(0.55 / 0.9)
    assert found[0].n == 100


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"rows": {"a": 1.0}, "metric": "mauve"}, "0.900–1.000"),
        ({"rows": {"a": 0.05}, "metric": "agreement_item"}, "0.000–0.150"),
        ({"rows": {"a": 0.5}}, "0.400–0.600"),
        ({"rows": {"a": 0.95}, "metric": "nll"}, "0.850–1.050"),
        ({"rows": {"a": 0.95}, "over": "b"}, "0.850–1.050"),
    ],
)
def test_a_shares_band_is_shown_within_0_and_1_and_any_other_whole(
    given: dict[str, Any], shown: str
) -> None:
    (one,) = judge(Expected("x", "y", [_numbers(slack=0.1, **given)]), {"decoders": {}})
    assert one.band == shown


@pytest.mark.parametrize(
    "given", [{"rows": {"c": 0.5}}, {"rows": {"a": 0.5}, "over": "c"}, {"rows": {"a": 0.5}, "task": "u"}]
)  # fmt: skip
def test_numbers_of_something_the_run_has_not_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Expected("x", "y", [_numbers(n=10, **given)]).check(["a", "b"], ["t"])


def test_a_run_is_inside_the_bands_made_of_itself_and_they_can_be_written_down() -> None:
    scores = _scores(a=0.4, b=0.8)
    expected = expected_of(scores, "itself", ["a", "b"])
    assert [one.inside for one in judge(expected, scores)] == [True, True]
    assert [one.inside for one in judge(expected, _scores(a=0.4, b=-0.5))] == [True, False]
    assert "  hardware: a machine\n" in bands.section(expected)


def test_a_number_without_an_interval_is_nothing_to_expect() -> None:
    scores = _scores(a=0.0)
    scores["decoders"]["a"]["tasks"]["t"]["accuracy"] |= {"low": 0.0, "high": 0.0}
    assert expected_of(scores, "x", ["a"]).numbers == []


def _recipe(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RUN.format(base=GOLDEN / "dream", folder=folder) + EXPECTED)
    return path


def test_a_recipe_runs_and_says_of_every_number_whether_it_came_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["eval", "--recipe", str(_recipe(tmp_path)), "--batch-size", "4"])
    written = json.loads((tmp_path / "run" / bands.VERDICTS).read_text())["verdicts"]
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["decoders"]
    accuracy = scores["marginals-k2"]["tasks"]["word_problems"]["accuracy"]["value"]
    assert [one["inside"] for one in written] == [True, False, True]
    assert written[1]["measured"] == accuracy == 0
    assert written[2]["measured"] == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 3 numbers inside their bands" in said
    assert "OUTSIDE" in said


def test_a_first_look_at_fewer_examples_has_wider_bands(tmp_path: Path) -> None:
    path = _recipe(tmp_path)
    path.write_text(path.read_text().replace("slack: 0.1,", "slack: 0.1, n: 4,"))
    widths = []
    for limit in ("2", "4"):
        cli.main(["eval", "--recipe", str(path), "--limit", limit])
        first = json.loads((tmp_path / "run" / bands.VERDICTS).read_text())["verdicts"][0]
        assert first["n"] == int(limit)
        widths.append(first["high"] - first["low"])
    assert widths[0] > widths[1]


def test_a_dry_run_shows_the_bands_and_loads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("dlmjoint.evaluation.commands.load_any_base")
    cli.main(["eval", f"--recipe={_recipe(tmp_path)}", "--dry-run", "true"])
    said = capsys.readouterr().out
    assert "1.990–2.010" in said
    assert "needs: none to speak of" in said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_a_number_of_an_unknown_decoder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = _recipe(tmp_path)
    path.write_text(path.read_text().replace("{exact: 0.0", "{exakt: 0.0"))
    with pytest.raises(SystemExit) as failure:
        cli.main(["eval", "--recipe", str(path), "--dry_run", "true"])
    assert failure.value.code == 2
    assert "expected accuracy of exakt" in capfd.readouterr().err


def test_a_recipe_is_found_by_name_file_or_folder(tmp_path: Path) -> None:
    assert find("tiny").read_text() == (ROOT / "configs/eval/tiny.yaml").read_text()
    path = _recipe(tmp_path)
    assert find(str(path)) == path
    published = tmp_path / recipes.IN_SAMPLER
    path.rename(published)
    assert find(str(tmp_path)) == published


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-such-recipe", "known here: .*tiny"),
        ("nobody/no-such-sampler", "no published sampler"),
        (str(ROOT / "configs/eval/demo.yaml"), "no `expected` section"),
        ("", "no recipe ''"),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_way_out(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find(name)


def test_every_recipe_of_a_paper_can_be_named() -> None:
    assert {path.stem for path in PAPERS} <= set(recipes.names())
    assert "demo" not in recipes.names()


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_every_recipe_of_a_paper_is_complete(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    cli.main(["eval", "--recipe", path.stem, "--dry_run", "true"])
    said = capsys.readouterr().out
    assert re.search(r"arXiv\s\d{4}\.\d{5}", said)
    assert "needs: " in said
    assert "band of " in said


ROWS: dict[str, dict[str, Any]] = {
    "GSM8K": {"question": "Ann has 3 nets and 4 more. How many?", "answer": "3+4=7.\n#### 7"},
    "MMLU": {"question": "1+1?", "choices": ["1", "2", "3", "4"], "answer": 1, "subject": "sums"},
    "ArcChallenge": {
        "question": "1+1?",
        "choices": {"text": ["1", "2", "3"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    },
    "HumanEval": {
        "prompt": "def one():\n    ",
        "test": "def check(f):\n    assert f() == 1\n",
        "entry_point": "one",
    },
    "MBPP": {
        "text": "Give one.",
        "code": "def one(): return 1",
        "test_list": ["assert one() == 1"],
    },
}
"""A row of every data set the recipes ask for."""
SHORTER = 32
"""How many times shorter responses are, and anchors nearer, on the tiny models."""


def _tiny(value: Any, folder: Path) -> Any:
    """A recipe's settings with the tiny models for the published ones, and two short examples."""
    if isinstance(value, list):
        return [_tiny(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _tiny(item, folder) for key, item in value.items()}
    for key in ("sampler", "model", "judge", "featurizer"):
        if isinstance(found.get(key), str):
            found[key] = _stand_in(found[key], key, folder)
    kind, given = found.get("class_path", ""), found.get("init_args", {})
    if kind.endswith(".Mauve"):
        given |= {"min_n": 2, "kmeans_seeds": 1, "resamples": 20}
    if ".tasks." in kind:
        _shorten(given, kind.rpartition(".")[2], folder)
    return found


def _stand_in(name: str, key: str, folder: Path) -> str:
    """A tiny model under the last part of a published one's name: two guides stay two."""
    place = folder / f"{key}-{Path(name).name}"
    if not place.exists():
        place.symlink_to(CHECKPOINTS / ("tiny-joint" if key == "sampler" else "tiny-judge"))
    return str(place)


def _shorten(given: dict[str, Any], task: str, folder: Path) -> None:
    given |= {
        "n": 1 if task in ROWS else 2,
        "max_new_tokens": given.get("max_new_tokens", 24) // SHORTER + 12,
    }
    given.pop("chat", None)  # the tiny tokenizer has no chat template
    if "anchors" in given:
        given["anchors"] = {
            column // SHORTER if column > 0 else 3 * column: text
            for column, text in given["anchors"].items()
        }
    if task in ROWS:
        source = folder / f"{task}.jsonl"
        source.write_text(2 * (json.dumps(ROWS[task]) + "\n"))
        given |= {"source": str(source), "subset": None}
    if task in ROWS and given.get("shots"):
        given["shots"] = 1
        shots = folder / f"{task}-shots.jsonl"
        shots.write_text(json.dumps(ROWS[task]) + "\n")
        given["shots_source"] = str(shots)


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.stem)
def test_every_recipe_of_a_paper_runs_on_the_tiny_models_and_measures_every_number(
    path: Path, tmp_path: Path
) -> None:
    settings = _tiny(yaml.safe_load(path.read_text()), tmp_path)
    settings |= {
        "base": str(CHECKPOINTS / "tiny-dream"),
        "run_dir": str(tmp_path / "run"),
        "device": "cpu",
        "dtype": "float32",
    }
    cli.main(["eval", "--config", json.dumps(settings)])
    verdicts = json.loads((tmp_path / "run" / bands.VERDICTS).read_text())["verdicts"]
    assert len(verdicts) == sum(len(part["rows"]) for part in settings["expected"]["numbers"])
    assert all(one["measured"] is not None for one in verdicts)


def test_the_recipe_tiny_expects_the_published_numbers() -> None:
    """Its numbers, rounded, are the table of docs/numbers/tiny.md."""
    expected = _parse(ROOT / "configs/eval/tiny.yaml").expected
    lines = (ROOT / "docs/numbers/tiny.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| decoder | item agreement"))
    headings = _cells(lines[start])
    metrics: dict[str, Callable[[float], str]] = {
        "agreement_item": "{:.2f}".format,
        "agreement_arithmetic": "{:.2f}".format,
        "mauve": "{:.2f}".format,
        "nll": "{:.2f}".format,
        "trajectory_kl": "{:.3f}".format,
        "accuracy": "{:.2f}".format,
    }
    titles = ("item agreement", "arithmetic", "MAUVE", "NLL, nats/token", "trajectory KL, nats/token", "greedy accuracy")  # fmt: skip
    for decoder in ("marginals-k4", "joint-k2", "joint-k4", "joint-k8"):
        row = _cells(next(line for line in lines[start:] if line.startswith(f"| {decoder} |")))
        for (metric, written), title in zip(metrics.items(), titles, strict=True):
            (part,) = (part for part in expected.numbers if part.metric == metric)
            assert row[headings.index(title)].split()[0] == written(part.published(decoder).value)


def test_the_recipe_code_expects_the_numbers_of_its_page() -> None:
    """Its shares, rounded, are docs/code.md's table."""
    expected = _parse(ROOT / "configs/eval/code.yaml").expected
    lines = (ROOT / "docs/code.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "| hole as it was |" in line)
    headings = _cells(lines[start])
    titles = {
        ("unconditional", "parses"): "parses",
        ("unconditional", "defined"): "defined",
        ("infilling", "accuracy"): "hole as it was",
        ("infilling", "parses"): "filled parses",
    }
    parts = {(part.task, part.metric): part for part in expected.numbers}
    for (task, metric), title in titles.items():
        part = parts[task, metric]
        assert {"exact", "marginals-k4", "joint-k4"} <= part.rows.keys()
        for decoder in part.rows:
            row = _cells(next(line for line in lines[start:] if line.startswith(f"| {decoder} |")))
            written = row[headings.index(title)].split()[0]
            assert written == f"{part.published(decoder).value:.3f}"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _parse(path: Path) -> Any:
    parser = cli.parser_of(cli.COMMANDS["eval"])
    return parser.instantiate(parser.parse_args(["--config", str(path)]))


def test_a_table_of_verdicts_names_every_row() -> None:
    expected = expected_of(_scores(a=0.4), "itself", ["a"])
    console = Console(width=100, record=True)
    console.print(bands.table(judge(expected, _scores(a=0.4))))
    assert re.search(r"a\s+t: accuracy\s+0.4\s+\S+\s+0.4\s+100\s+inside", console.export_text())
