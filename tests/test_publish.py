"""Publishing: what others get loads, runs and measures again; what is not known is not published."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard

import dlmjoint
from dlmjoint import cli
from dlmjoint.custom_generate import base_of, generate_jointly
from dlmjoint.errors import ConfigError, DataError, LoadError, MismatchError
from dlmjoint.evaluation.recipes import config_of
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler, JointSamplerConfig
from dlmjoint.models.load import load_base
from dlmjoint.publish.command import publish
from dlmjoint.trajectories.store import TrajectoryStore
from tests.conftest import CHECKPOINTS, GOLDEN

ROOT = CHECKPOINTS.parent
SAMPLER = CHECKPOINTS / "tiny-joint"
REPO = "someone/tiny-joint"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
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


@pytest.fixture(scope="module")
def in_root() -> Any:
    """Folders of `checkpoints/` are named relative to the repository's root."""
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, in_root: None) -> Path:
    """A small evaluation of the tiny sampler."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = folder / "eval.yaml"
    config.write_text(EVAL)
    cli.main(["eval", "--config", str(config), "--run_dir", str(folder / "run")])
    return folder / "run"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, evaluated: Path) -> Path:
    """What a dry run of the tiny sampler writes."""
    folder = tmp_path_factory.mktemp("published") / "out"
    cli.main(
        ["publish", str(SAMPLER), REPO, "--evaluation", str(evaluated), "--dry-run", str(folder)]
    )
    return folder


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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, without a network behind it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


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


def test_a_missing_training_config_is_refused_before_anything_is_written(
    evaluated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"give the config\.yaml in fit's logs"):
        publish(SAMPLER, REPO, evaluated, tmp_path / "none.yaml", dry_run=out)
    assert not list(out.iterdir())


def _cached(cache: Path, repo: str, folder: Path) -> None:
    """The folder as the hub's client keeps a download of it."""
    place = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)


def test_the_cards_snippets_run_from_the_hub_ids_alone(
    evaluated: Path, tmp_path: Path, hub: Path
) -> None:
    _cached(hub, "someone/tiny-dream", CHECKPOINTS / "tiny-dream")
    out = tmp_path / "out"
    publish(SAMPLER, REPO, evaluation=evaluated, base="someone/tiny-dream", dry_run=out)
    config = json.loads((out / "config.json").read_text())
    assert (config["base_name"], config["base_revision"]) == ("someone/tiny-dream", COMMIT)
    publish(out, REPO, dry_run=tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (out / "config.json").read_bytes()
    _cached(hub, REPO, out)
    assert f'"sampler": "{REPO}"' in config_of(REPO)
    places = {"HF_HUB_CACHE": str(hub), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    code = "\n".join(_blocks((out / "README.md").read_text()))
    said = _python(code + "\nprint(base.revision, tuple(ids.shape))", **places)
    assert said.splitlines()[-1] == f"{COMMIT} (1, 40)"


def _copy(folder: Path, *left_out: str) -> Path:
    copied = shutil.copytree(SAMPLER, folder)
    for name in left_out:
        (copied / name).unlink()
    return copied


@pytest.mark.parametrize("name", ["provenance.json", "metrics.json"])
def test_a_sampler_without_provenance_is_not_published(
    evaluated: Path, tmp_path: Path, name: str
) -> None:
    folder = _copy(tmp_path / "sampler", name)
    with pytest.raises(DataError, match=rf"{name} is missing: .*dlmjoint fit.* write"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_provenance_that_does_not_say_the_command_is_refused(
    evaluated: Path, tmp_path: Path
) -> None:
    folder = _copy(tmp_path / "sampler")
    values = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(values | {"command": ""}))
    with pytest.raises(DataError, match="does not say the command"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")


def test_a_converted_sampler_needs_no_numbers_of_a_training(
    evaluated: Path, tmp_path: Path
) -> None:
    folder = _copy(tmp_path / "sampler", "metrics.json")
    values = json.loads((folder / "provenance.json").read_text())
    values["settings"]["checkpoint"] = "adjust.ckpt"
    (folder / "provenance.json").write_text(json.dumps(values))
    publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| checkpoint | adjust.ckpt |" in card
    assert "The last validation" not in card


def test_a_sampler_without_measurements_is_not_published(tmp_path: Path, in_root: None) -> None:
    folder = _copy(tmp_path / "sampler")
    shutil.rmtree(folder / "evaluation", ignore_errors=True)
    with pytest.raises(DataError, match=r"settings\.json is missing: evaluate the sampler with"):
        publish(folder, REPO, dry_run=tmp_path / "out")


def test_an_evaluation_that_was_not_scored_is_refused(evaluated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated, tmp_path / "run")
    (run / "scores.json").unlink()
    with pytest.raises(DataError, match=r"scores\.json is missing"):
        publish(SAMPLER, REPO, evaluation=run, dry_run=tmp_path / "out")


def test_measurements_of_another_sampler_are_refused(evaluated: Path, tmp_path: Path) -> None:
    folder = _copy(tmp_path / "sampler")
    other = JointSampler.from_pretrained(folder)
    torch.nn.init.constant_(other.gain.weight, 0.1)
    other.save_pretrained(folder)
    with pytest.raises(MismatchError, match="the numbers are another sampler's"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")


def test_measurements_with_another_base_are_refused(evaluated: Path, tmp_path: Path) -> None:
    run = shutil.copytree(evaluated, tmp_path / "run")
    made = json.loads((run / "settings.json").read_text())
    made["base"]["fingerprint"] = "another"
    (run / "settings.json").write_text(json.dumps(made))
    with pytest.raises(MismatchError, match="evaluate it with its own base"):
        publish(SAMPLER, REPO, evaluation=run, dry_run=tmp_path / "out")


def test_another_base_is_refused(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="name its own base"):
        publish(SAMPLER, REPO, evaluation=evaluated, base=str(GOLDEN / "dream"), dry_run=tmp_path)


@pytest.mark.parametrize(
    ("repo", "said"), [("tiny-joint", "names no owner"), ("a/b/c", "is no hub id")]
)
def test_a_name_that_is_no_hub_id_is_refused(repo: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        publish(SAMPLER, repo, dry_run=tmp_path)


def test_a_dry_run_does_not_write_into_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(DataError, match="is not empty"):
        publish(SAMPLER, REPO, dry_run=tmp_path)


def test_a_folder_that_is_neither_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as failure:
        cli.main(["publish", str(tmp_path / "none"), REPO, "--dry-run", str(tmp_path / "out")])
    assert failure.value.code == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("dlmjoint: error: ")


class _Hub:
    """Notes what would be sent."""

    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self) -> None:
        type(self).calls = []

    def create_repo(self, repo: str, **settings: Any) -> None:
        self.calls.append((repo, settings))

    def upload_folder(self, *, repo_id: str, folder_path: Path, **settings: Any) -> None:
        names = {path.name for path in Path(folder_path).iterdir()}
        self.calls.append((repo_id, settings | {"names": names}))


def test_a_base_in_a_folder_is_not_published_for_others(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlmjoint.publish.command.HfApi", _Hub)
    _Hub.calls = []
    with pytest.raises(ConfigError, match="give its hub id as --base"):
        publish(SAMPLER, REPO, evaluation=evaluated)
    with pytest.raises(ConfigError, match="give its hub id as --base"):
        publish(_trajectories(tmp_path / "drawn"), REPO)
    assert not _Hub.calls


def _trajectories(folder: Path) -> Path:
    cli.main(
        ["generate", "--base", str(GOLDEN / "dream"), "--output", str(folder), "--device", "cpu",
         "--prompts", "dlmjoint.trajectories.prompts.Unconditional", "--prompts.n", "5",
         "--max_new_tokens", "4", "--shard_size", "2"]
    )  # fmt: skip
    return folder


def test_published_trajectories_load_as_a_data_set_and_as_trajectories(
    tmp_path: Path, hub: Path
) -> None:
    _cached(hub, "someone/dream", GOLDEN / "dream")
    folder, out = _trajectories(tmp_path / "drawn"), tmp_path / "out"
    publish(folder, "someone/drawn", base="someone/dream", dry_run=out)
    rows = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["order"][:] == TrajectoryStore.open(folder).read()["order"][:]
    store = TrajectoryStore.open(out)
    assert store.read()["log_probs"][:] == rows["log_probs"][:]
    assert (store.manifest.base, store.manifest.base_revision) == ("someone/dream", COMMIT)
    card = DatasetCard.load(out / "README.md")
    assert card.data.task_categories == ["text-generation"]
    assert card.data.size_categories == "n<1K"
    for column in rows.column_names:
        assert f"| `{column}` |" in card.text
    assert "order=LowEntropy()" in card.text
    assert "Unconditional(n=5" in card.text


@pytest.mark.parametrize(
    ("name", "said"),
    [("provenance.json", "dlmjoint generate"), ("shard-00001.parquet", "lacks 1 of 3 shards")],
)
def test_incomplete_trajectories_are_not_published(tmp_path: Path, name: str, said: str) -> None:
    folder = _trajectories(tmp_path / "drawn")
    (folder / name).unlink()
    with pytest.raises(DataError, match=said):
        publish(folder, "someone/drawn", dry_run=tmp_path / "out")


def test_another_base_of_trajectories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="has other weights"):
        publish(
            _trajectories(tmp_path / "drawn"),
            REPO,
            base=str(CHECKPOINTS / "tiny-dream"),
            dry_run=tmp_path / "out",
        )


def test_measurements_are_no_setting_of_trajectories(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are a sampler's"):
        publish(
            _trajectories(tmp_path / "drawn"), "a/b", evaluation=tmp_path, dry_run=tmp_path / "o"
        )


def test_an_upload_creates_the_repository_and_sends_everything(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlmjoint.publish.command.HfApi", _Hub)
    _cached(hub, "someone/dream", GOLDEN / "dream")
    drawn = _trajectories(tmp_path / "drawn")
    publish(drawn, "someone/drawn", base="someone/dream", private=True)
    (created, how), (sent, what) = _Hub.calls
    assert created == sent == "someone/drawn"
    assert how == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert what["names"] > {"README.md", "manifest.json", "provenance.json", "shard-00002.parquet"}


def test_what_the_hub_refuses_ends_with_the_way_out(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("403")

    monkeypatch.setattr("dlmjoint.publish.command.HfApi", _Hub)
    monkeypatch.setattr(_Hub, "create_repo", refuse)
    _cached(hub, "someone/dream", GOLDEN / "dream")
    with pytest.raises(ConfigError, match=r"403.*hf auth login"):
        publish(_trajectories(tmp_path / "drawn"), "someone/drawn", base="someone/dream")


@pytest.fixture
def sampler(random_dream: Dream) -> JointSampler:
    return JointSampler.from_base(random_dream, gain=1.0).eval()


def test_a_sampler_loads_its_base_from_where_its_config_says(tmp_path: Path) -> None:
    found = JointSampler.from_base(load_base(GOLDEN / "dream"))
    found.save_pretrained(tmp_path)
    assert JointSampler.from_pretrained(tmp_path).load_base().name == str(GOLDEN / "dream")


def test_a_base_elsewhere_is_loaded_and_another_base_refused(tmp_path: Path) -> None:
    found = JointSampler.from_base(load_base(GOLDEN / "dream"))
    copy = shutil.copytree(GOLDEN / "dream", tmp_path / "copy")
    found.config.base_name = "nobody/nowhere"
    assert found.load_base(name=copy).name == str(copy)
    with pytest.raises(MismatchError, match=r"load that base, as sampler.load_base\(\) does"):
        found.load_base(name=CHECKPOINTS / "tiny-dream")


def test_a_base_that_is_not_there_is_refused_with_the_way_out(
    sampler: JointSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LoadError, match=r"load_base\(name=\.\.\.\)"):
        sampler.load_base()


def test_another_commit_of_the_base_is_refused(random_dream: Dream, sampler: JointSampler) -> None:
    sampler.config.base_revision = "a" * 40
    sampler.check(random_dream)
    random_dream.revision = "b" * 40
    with pytest.raises(MismatchError, match=f"load the base with revision={'a' * 40}"):
        sampler.check(random_dream)


def _call(base: Dream, sampler: JointSampler, **given: Any) -> torch.Tensor:
    return generate_jointly(base.network, sampler, max_new_tokens=8, **given)


def test_transformers_generate_writes_what_dlmjoint_generate_does(
    random_dream: Dream, sampler: JointSampler
) -> None:
    prompts = torch.tensor([[1, 5, 6], [1, 7, 8]])
    for given, draw in (
        ({}, dlmjoint.Draw(temperature=0.0)),
        ({"do_sample": True, "temperature": 0.7}, dlmjoint.Draw(temperature=0.7)),
    ):
        policy = dlmjoint.Policy(4, refine=dlmjoint.Joint(sampler), draw=draw)
        expected = dlmjoint.generate(random_dream, prompts, policy, max_new_tokens=8, seed=3)
        found = _call(random_dream, sampler, inputs=prompts, seed=3, **given)
        assert found.tolist() == expected.sequences


def test_transformers_left_padding_changes_nothing(
    random_dream: Dream, sampler: JointSampler
) -> None:
    padded = torch.tensor([[0, 0, 1, 5], [1, 7, 8, 9]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    found = _call(random_dream, sampler, input_ids=padded, attention_mask=mask)
    alone = _call(random_dream, sampler, input_ids=padded[:1, 2:])
    assert found[0, 2:].tolist() == alone[0].tolist()
    assert found[:, :4].tolist() == padded.tolist()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda b, s: _call(b, s), "give the prompts' ids once"),
        (lambda b, s: _call(b, s, inputs=torch.ones(1, 2), input_ids=torch.ones(1, 2)), "once"),
        (lambda b, s: _call(b, s, inputs=torch.tensor([[1, 2]]), attention_mask=torch.tensor([[1, 0]])), "pad prompts on the left"),
        (lambda b, s: b.network.generate(torch.tensor([[1, 2]])), "has no next token"),
    ],
)  # fmt: skip
def test_what_transformers_could_ask_in_vain_is_refused(
    call: Callable[[Dream, JointSampler], Any],
    said: str,
    random_dream: Dream,
    sampler: JointSampler,
) -> None:
    with pytest.raises(ConfigError, match=said):
        call(random_dream, sampler)


def test_a_network_knows_the_tokens_its_tokenizer_does_not() -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    assert base_of(base.network).forbidden_ids == base.forbidden_ids
    assert len(base.forbidden_ids) > 1


def test_code_of_a_repository_runs_only_where_it_is_trusted(published: Path) -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    with pytest.raises(ValueError, match="trust_remote_code"):
        base.network.generate(
            torch.tensor([[450, 48]]), custom_generate=published, trust_remote_code=False
        )


def test_a_config_without_a_base_is_no_samplers_to_publish(evaluated: Path, tmp_path: Path) -> None:
    folder = _copy(tmp_path / "sampler")
    config = JointSamplerConfig.from_pretrained(folder)
    config.base_name = None
    config.save_pretrained(folder)
    with pytest.raises(LoadError, match="names no base"):
        publish(folder, REPO, evaluation=evaluated, dry_run=tmp_path / "out")
