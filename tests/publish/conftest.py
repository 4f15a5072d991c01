"""A small evaluation of the tiny sampler, and what is published with it."""

from contextlib import chdir
from pathlib import Path

import pytest

from dlmjoint import cli
from tests.publish.repositories import REPO, ROOT, SAMPLER

EVAL = f"""
base: checkpoints/tiny-dream
decoders:
  exact: {{}}
  marginals-k4: {{commits_per_forward: 4}}
  joint-k4:
    commits_per_forward: 4
    refine: {{class_path: dlmjoint.decoding.refine.Trained, init_args: {{sampler: {SAMPLER}}}}}
tasks:
  - class_path: dlmjoint.evaluation.tasks.word_problems.WordProblems
    init_args: {{n: 16}}
  - class_path: dlmjoint.evaluation.tasks.unconditional.Unconditional
    init_args:
      n: 12
      max_new_tokens: 24
      metrics:
        - class_path: dlmjoint.evaluation.metrics.agreement.CorpusAgreement
        - class_path: dlmjoint.evaluation.metrics.trajectory_kl.TrajectoryKL
"""


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of `checkpoints/` are named relative to the repository's root."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small evaluation of the tiny sampler."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = folder / "eval.yaml"
    config.write_text(EVAL)
    with chdir(ROOT):
        cli.main(["eval", "--config", str(config), "--run_dir", str(folder / "run")])
    return folder / "run"


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, evaluated: Path) -> Path:
    """What a dry run of the tiny sampler writes."""
    folder = tmp_path_factory.mktemp("published") / "out"
    given = ["--evaluation", str(evaluated), "--dry-run", str(folder)]
    with chdir(ROOT):
        cli.main(["publish", str(SAMPLER), REPO, *given])
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, without a network behind it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"
