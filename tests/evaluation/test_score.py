import json
from dataclasses import replace

import pytest
import torch

from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Trained
from dlmjoint.errors import ConfigError, DataError, MismatchError
from dlmjoint.evaluation import commands
from dlmjoint.evaluation.running import settings
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.aup import family
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.telling.report import compare, report
from dlmjoint.evaluation.telling.table import Cell
from dlmjoint.models.joint import JointSampler


@pytest.fixture(scope="module")
def sampler(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampler")
    torch.manual_seed(0)
    JointSampler.from_base(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scored(base, setup, sampler, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "scored"
    decoders = setup.decoders | {"joint-k4": Policy(4, refine=Trained(sampler))}
    run(base, decoders, setup.tasks, run_dir)
    score(run_dir, base=base)
    return run_dir


def test_scores_have_the_contracts_shape(scored):
    scores = json.loads((scored / "scores.json").read_text())
    assert set(scores) == {"decoders", "ceiling", "pairs", "aup", "provenance"}
    assert list(scores["decoders"]) == ["exact", "marginals-k4", "joint-k4"]
    for part in scores["decoders"].values():
        assert set(part) == {"policy", "tasks", "cost"}
        assert {"mauve", "nll", "trajectory_kl", "agreement_item"} < set(
            part["tasks"]["unconditional"]
        )
        assert set(part["tasks"]["word_problems"]) == {"accuracy", "answered"}
        for name in ("base_forwards", "sampler_passes", "tokens", "tokens_per_forward", "seconds"):
            assert name in part["cost"]
    assert set(scores["ceiling"]) == {"unconditional"}
    assert set(scores["ceiling"]["unconditional"]) == {"mauve"}
    assert scores["provenance"]["tasks"]["word_problems"]["init_args"]["draw"]["init_args"][
        "temperature"
    ] == 0  # fmt: skip


def test_every_score_has_an_interval_around_its_value_and_its_n(scored):
    scores = json.loads((scored / "scores.json").read_text())
    for part in scores["decoders"].values():
        for task, n in (("unconditional", 12), ("word_problems", 5)):
            for value in part["tasks"][task].values():
                assert set(value) == {"value", "low", "high", "n"}
                assert value["low"] <= value["value"] <= value["high"]
                assert value["n"] == n


def test_costs_are_sums_over_rows(scored):
    scores = json.loads((scored / "scores.json").read_text())["decoders"]
    tokens = 12 * 10 + 5 * 6
    assert scores["exact"]["cost"]["base_forwards"] == tokens
    assert scores["exact"]["cost"]["tokens_per_forward"] == 1
    joint = scores["joint-k4"]["cost"]
    assert joint["base_forwards"] == 12 * 3 + 5 * 2
    assert joint["sampler_passes"] == 12 * (3 + 3 + 1) + 5 * (3 + 1)
    assert scores["marginals-k4"]["cost"]["sampler_passes"] == 0


def test_the_exact_decoders_trajectory_kl_is_zero_and_its_mauve_is_the_ceiling(scored):
    scores = json.loads((scored / "scores.json").read_text())
    exact = scores["decoders"]["exact"]["tasks"]["unconditional"]
    assert exact["trajectory_kl"]["value"] == pytest.approx(0, abs=1e-5)
    assert exact["mauve"] == scores["ceiling"]["unconditional"]["mauve"]


def test_a_run_is_scored_again_from_its_folder_alone(scored):
    before = json.loads((scored / "scores.json").read_text())
    after = score(scored)
    assert after["decoders"] == before["decoders"]
    assert after["ceiling"] == before["ceiling"]


def test_a_base_is_loaded_where_the_cache_is_gone_and_another_one_is_refused(
    scored, base, tmp_path
):
    for path in (scored / "cache").glob("trajectory-kl-*"):
        path.unlink()
    before = json.loads((scored / "scores.json").read_text())["decoders"]
    after = score(scored)["decoders"]
    assert {name: part["tasks"] for name, part in after.items()} == {
        name: part["tasks"] for name, part in before.items()
    }
    made = settings.load(scored)
    made["base"]["fingerprint"] = "another"
    for path in scored.rglob("*.jsonl"):
        copy = tmp_path / path.relative_to(scored)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / settings.FILE).write_text(json.dumps(made))
    with pytest.raises(MismatchError, match="is not the base"):
        score(tmp_path, base=base)


def test_a_sampler_retrained_in_place_is_noticed(base, setup, tmp_path):
    sampler = JointSampler.from_base(base)
    sampler.save_pretrained(tmp_path / "sampler")
    decoders = {"joint-k2": Policy(2, refine=Trained(tmp_path / "sampler"))}
    run(base, decoders, [setup.unconditional], tmp_path / "run")
    sampler.gain.weight.data.add_(1.0)
    sampler.save_pretrained(tmp_path / "sampler")
    with pytest.raises(MismatchError, match="joint-k2"):
        score(tmp_path / "run", base=base)
    with pytest.raises(ConfigError, match=r"decoders.joint-k2.weights"):
        run(base, decoders, [setup.unconditional], tmp_path / "run")


def test_a_sampler_given_as_an_object_is_asked_for_again(base, setup, tmp_path):
    decoders = {"joint-k2": Policy(2, refine=Joint(JointSampler.from_base(base).eval()))}
    run(base, decoders, [setup.unconditional], tmp_path)
    with pytest.raises(ConfigError, match="decoders"):
        score(tmp_path, base=base)
    assert "joint-k2" in score(tmp_path, base=base, decoders=decoders)["decoders"]


def test_missing_generations_are_refused(base, setup, tmp_path):
    task = replace(setup.word_problems, n=2)
    run(base, {"exact": Policy()}, [task], tmp_path)
    with pytest.raises(DataError, match="2 of 3"):
        score(tmp_path, tasks=[replace(task, n=3)])
    with pytest.raises(DataError, match="not the folder of an evaluation"):
        score(tmp_path / "elsewhere")


def test_grades_are_written_with_their_reasons(scored):
    grades = json.loads((scored / "grades" / "exact" / "word_problems.json").read_text())
    assert len(grades) == 5
    assert all(grade["reason"] for grade in grades)


def test_descriptions_rebuild_what_they_describe(setup, sampler):
    for value in (
        Policy(4, refine=Trained(str(sampler))),
        setup.unconditional,
        setup.word_problems,
    ):
        assert settings.build(json.loads(json.dumps(settings.describe(value)))) == value


def test_a_run_that_was_decoded_and_scored_has_a_report(scored):
    table = report(scored)
    assert table.row_count == 4  # three decoders and the ceiling
    assert "joint-k4" in (scored / "report.html").read_text()
    assert (scored / "quality.png").stat().st_size > 1000


def test_several_runs_are_compared_in_one_table(scored):
    table = compare([scored])
    assert "scored/joint-k4" in table.names
    markdown = table.markdown().splitlines()
    assert len(markdown) == 2 + 4
    assert len({line.count("|") for line in markdown}) == 1
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare([])


def test_families_are_names_without_their_k():
    assert [family(n) for n in ("joint-k4", "joint-k16+cache", "exact")] == [
        "joint",
        "joint+cache",
        "exact",
    ]


def test_cells_show_their_interval():
    assert (Cell(0.5, 0.25, 0.75).text, Cell(0.5, 0.25, 0.75).interval) == ("0.500", "0.250–0.750")
    assert Cell(1234.5).text == "1,234"


def test_the_eval_command_does_it_all(base, setup, tmp_path, capsys):
    commands.evaluate(base.name, setup.decoders, [setup.word_problems], tmp_path / "run")
    commands.score(tmp_path / "run")
    commands.compare([tmp_path / "run"], tmp_path / "both")
    shown = capsys.readouterr().out
    assert "marginals-k4" in shown
    assert "report.html" in shown
    assert "run/exact" in (tmp_path / "both" / "table.md").read_text()
