"""What lives in another package works by its name: the example package, installed and run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlmjoint import cli
from dlmjoint.errors import ConfigError
from dlmjoint.models.load import load_any_base, load_base, load_tokenizer
from tests.conftest import GOLDEN

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "ladder"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example package is installed into, from a copy: building writes beside it."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copytree(EXAMPLE, folder / "source")
    install = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", *install, "--target", "site", "./source"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert (folder / "site" / "ladder" / "base.py").exists()
    return folder / "site"


def test_a_base_a_policy_a_task_and_a_metric_of_another_package_are_evaluated(installed, tmp_path):
    command = [sys.executable, "-m", "dlmjoint", "eval", "--config", str(EXAMPLE / "eval.yaml")]
    places = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(installed)])}
    done = subprocess.run(
        command, cwd=tmp_path, env=places, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no examples" not in done.stderr
    scores = json.loads((tmp_path / "runs" / "ladder" / "scores.json").read_text())
    steps = {name: part["tasks"]["ladders"]["steps"] for name, part in scores["decoders"].items()}
    # A letter is the next one with probability 0.9 + 0.1 / 26.
    assert steps["exact"]["low"] < 0.9 + 0.1 / 26 < steps["exact"]["high"]
    assert steps["neighbours-k4"]["high"] < steps["strides-k4"]["low"]


@pytest.fixture
def here(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, in a process that finds the example package."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_saved_settings_of_such_a_run_run_it_again_and_score_it_again(here):
    config = str(EXAMPLE / "eval.yaml")
    cli.main(["eval", "--config", config, "--run_dir", "one", "--limit", "4"])
    cli.main(["eval", "--config", "one/config.yaml", "--run_dir", "two"])
    lines = [
        [json.loads(line)["text"] for line in path.read_text().splitlines()]
        for path in sorted(here.glob("*/generations/strides-k4/ladders.jsonl"))
    ]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 4
    before = json.loads(Path("one/scores.json").read_text())["decoders"]
    cli.main(["score", "--run_dir", "one"])
    assert json.loads(Path("one/scores.json").read_text())["decoders"] == before


def test_a_decoding_of_a_base_of_another_package_is_shown(here, capsys):
    base = ["--base", "ladder.base.Ladder:0.999999", "--max_new_tokens", "5"]
    cli.main(["sample", *base, "--prompt", "x", "--live", "false"])
    assert capsys.readouterr().out == "yzabc\n"


def test_training_on_a_base_that_is_no_transformer_is_refused(here):
    with pytest.raises(ConfigError, match=r"Ladder:0\.9 is no transformer, which trajectories"):
        load_base("ladder.base.Ladder:0.9")


def test_the_examples_base_keeps_the_contract_of_bases(here):
    base = load_any_base("ladder.base.Ladder:0.5")
    assert base.name == "ladder.base.Ladder:0.5"
    prompts = [[1, 2, 0, 1], [1]]
    batch = base.predict(base.canvas(prompts, 3)).hidden[:, -3:]
    for row, prompt in enumerate(prompts):
        alone = base.predict(base.canvas([prompt], 3)).hidden[:, -3:]
        torch.testing.assert_close(batch[row : row + 1], alone)
    canvas = base.canvas([[0]], 2)
    canvas.tokens[0, 2] = 2  # a ? c: by Bayes' rule of the chain
    chain = torch.full((26, 26), 0.5 / 26) + 0.5 * torch.eye(26).roll(1, 1)
    expected = chain[0] * chain[:, 2]
    found = base.unembed(base.predict(canvas).hidden)[0, 1, :26].exp()
    torch.testing.assert_close(found, expected / expected.sum())


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A family of transformers in a module of its own, over Dream's golden weights."""
    module = "from dlmjoint.models.dream import Dream\n\nclass Mine(Dream):\n    pass\n"
    (tmp_path / "my_family.py").write_text(f"{module}\nclass Alone:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"my_family.Mine:{GOLDEN / 'dream'}"


def test_a_family_of_another_package_is_a_base_for_everything(family):
    ours, theirs = load_base(GOLDEN / "dream"), load_base(family)
    assert type(theirs).__name__ == "Mine"
    assert (theirs.name, theirs.fingerprint) == (family, ours.fingerprint)
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(theirs.score(ids)[1], ours.score(ids)[1])
    tokenizer = load_tokenizer(family)
    assert tokenizer is not None
    assert tokenizer.get_vocab() == theirs.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my_famly.Mine:x", "no such class of an installed package: No module named 'my_famly'"),
        ("my_family.Yours:x", "has no attribute 'Yours'"),
        ("my_family.Alone", "is no subclass of dlmjoint.models.base.Base"),
        ("dlmjoint.models.toy.TableModel", "TableModel has none"),
    ],
)
def test_a_name_that_is_no_base_of_another_package_is_refused(family, name, words):
    with pytest.raises(ConfigError, match=words):
        load_any_base(name)
