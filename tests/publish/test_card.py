"""What is published loads, runs and measures again what its card says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from dlmjoint.evaluation.recipes import config_of
from dlmjoint.models.load import load_base
from dlmjoint.publish.command import publish
from tests.conftest import CHECKPOINTS
from tests.publish.repositories import COMMIT, REPO, ROOT, SAMPLER, cached


def _rows(card: str) -> dict[str, dict[str, str]]:
    """The rows of a card's table of measurements, by decoder and heading; speed left out."""
    lines = [line for line in card.partition("## Measured")[2].splitlines() if line[:1] == "|"]
    headings, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {
        name: {k: v for k, v in zip(headings[1:], cells, strict=True) if k != "tokens / s"}
        for name, *cells in rows[: rows.index(next(r for r in rows if r[0] == "n")) + 1]
    }


def _blocks(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def _python(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


AGAIN = """
import sys
from pathlib import Path
from dlmjoint import JointSampler, cli
from dlmjoint.publish.measured import Measured
folder, run = {folder!r}, {run!r}
sampler = JointSampler.from_pretrained(folder)
print(sampler.load_base().name)
cli.main(["eval", "--recipe", folder, "--run_dir", run])
print("## Measured")
print(Measured.of(Path(run), Path(folder)).table())
"""


def test_a_fresh_process_loads_the_folder_and_reproduces_its_cards_table(
    published: Path, tmp_path: Path
) -> None:
    run = tmp_path / "again"
    said = _python(AGAIN.format(folder=str(published), run=str(run)))
    assert said.splitlines()[0] == "checkpoints/tiny-dream"
    card = _rows((published / "README.md").read_text())
    assert set(card) == {"exact", "marginals-k4", "joint-k4", "n"}
    assert _rows(said) == card
    verdicts = json.loads((run / "verdicts.json").read_text())["verdicts"]
    assert {one["inside"] for one in verdicts} == {True}
    assert {one["decoder"] for one in verdicts} == {"exact", "marginals-k4", "joint-k4"}


def test_the_cards_numbers_are_those_of_scores_json(published: Path, evaluated: Path) -> None:
    scores = json.loads((evaluated / "scores.json").read_text())["decoders"]["joint-k4"]
    rows = _rows((published / "README.md").read_text())
    accuracy = scores["tasks"]["word_problems"]["accuracy"]
    written = "{value:.3f} ({low:.3f}–{high:.3f})".format(**accuracy)
    assert rows["joint-k4"]["accuracy"] == written
    assert rows["n"]["accuracy"] == "16"
    data = ModelCard.load(published / "README.md").data
    results = {result.metric_name: result for result in data.eval_results}
    assert results["accuracy, joint-k4"].metric_value == round(accuracy["value"], 4)
    assert not [name for name in results if "exact" in name or "marginals" in name]


def test_the_card_says_what_the_hub_asks_for(published: Path) -> None:
    data = ModelCard.load(published / "README.md").data
    assert data.library_name == "dlmjoint"
    assert data.base_model == "checkpoints/tiny-dream"
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert (data.pipeline_tag, data.license) == ("text-generation", "apache-2.0")
    text = (published / "README.md").read_text()
    provenance = json.loads((SAMPLER / "provenance.json").read_text())
    assert provenance["command"] in text
    assert provenance["hardware"] in text
    assert text.count(provenance["source"]["commit"][:12]) >= 1


def test_the_weights_are_the_samplers_and_the_config_names_the_base(published: Path) -> None:
    names = ("model.safetensors", "provenance.json", "metrics.json")
    for name in names:
        assert (published / name).read_bytes() == (SAMPLER / name).read_bytes()
    config = json.loads((published / "config.json").read_text())
    assert config["base_name"] == "checkpoints/tiny-dream"
    assert config["base_fingerprint"] == load_base(CHECKPOINTS / "tiny-dream").fingerprint
    assert "_name_or_path" not in config["base_config"]


def test_a_published_folder_can_be_published_again(published: Path, tmp_path: Path) -> None:
    publish(published, REPO, dry_run=tmp_path / "again")
    first, second = (
        {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (published, tmp_path / "again")
    )
    assert first == second


def test_training_and_trajectories_are_named_where_they_are_given(
    evaluated: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {depth: 7}\n")
    out = tmp_path / "out"
    publish(
        SAMPLER, REPO, evaluated, config, datasets=["someone/drawn"], license="mit", dry_run=out
    )
    assert (out / "training.yaml").read_text() == config.read_text()
    card = ModelCard.load(out / "README.md")
    assert card.data.datasets == ["someone/drawn"]
    assert card.data.license == "mit"
    assert "[training.yaml](training.yaml)" in card.text
    assert "https://huggingface.co/datasets/someone/drawn" in card.text


def test_the_cards_snippets_run_from_the_hub_ids_alone(
    evaluated: Path, tmp_path: Path, hub: Path
) -> None:
    cached(hub, "someone/tiny-dream", CHECKPOINTS / "tiny-dream")
    out = tmp_path / "out"
    publish(SAMPLER, REPO, evaluation=evaluated, base="someone/tiny-dream", dry_run=out)
    config = json.loads((out / "config.json").read_text())
    assert (config["base_name"], config["base_revision"]) == ("someone/tiny-dream", COMMIT)
    publish(out, REPO, dry_run=tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (out / "config.json").read_bytes()
    cached(hub, REPO, out)
    assert f'"sampler": "{REPO}"' in config_of(REPO)
    places = {"HF_HUB_CACHE": str(hub), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    code = "\n".join(_blocks((out / "README.md").read_text()))
    said = _python(code + "\nprint(base.revision, tuple(ids.shape))", **places)
    assert said.splitlines()[-1] == f"{COMMIT} (1, 40)"


def test_code_of_a_repository_runs_only_where_it_is_trusted(published: Path) -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    with pytest.raises(ValueError, match="trust_remote_code"):
        base.network.generate(
            torch.tensor([[450, 48]]), custom_generate=published, trust_remote_code=False
        )
