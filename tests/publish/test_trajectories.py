"""Published trajectories, and uploads."""

from pathlib import Path

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from dlmjoint.errors import ConfigError, DataError, MismatchError
from dlmjoint.publish.command import publish
from dlmjoint.trajectories.store import TrajectoryStore
from tests.conftest import CHECKPOINTS, GOLDEN
from tests.publish.repositories import COMMIT, REPO, SAMPLER, Hub, cached, trajectories


def test_a_base_in_a_folder_is_not_published_for_others(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlmjoint.publish.command.HfApi", Hub)
    Hub.calls = []
    with pytest.raises(ConfigError, match="give its hub id as --base"):
        publish(SAMPLER, REPO, evaluation=evaluated)
    with pytest.raises(ConfigError, match="give its hub id as --base"):
        publish(trajectories(tmp_path / "drawn"), REPO)
    assert not Hub.calls


def test_published_trajectories_load_as_a_data_set_and_as_trajectories(
    tmp_path: Path, hub: Path
) -> None:
    cached(hub, "someone/dream", GOLDEN / "dream")
    folder, out = trajectories(tmp_path / "drawn"), tmp_path / "out"
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
    folder = trajectories(tmp_path / "drawn")
    (folder / name).unlink()
    with pytest.raises(DataError, match=said):
        publish(folder, "someone/drawn", dry_run=tmp_path / "out")


def test_another_base_of_trajectories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="has other weights"):
        publish(
            trajectories(tmp_path / "drawn"),
            REPO,
            base=str(CHECKPOINTS / "tiny-dream"),
            dry_run=tmp_path / "out",
        )


def test_measurements_are_no_setting_of_trajectories(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="are a sampler's"):
        publish(
            trajectories(tmp_path / "drawn"), "a/b", evaluation=tmp_path, dry_run=tmp_path / "o"
        )


def test_an_upload_creates_the_repository_and_sends_everything(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlmjoint.publish.command.HfApi", Hub)
    cached(hub, "someone/dream", GOLDEN / "dream")
    drawn = trajectories(tmp_path / "drawn")
    publish(drawn, "someone/drawn", base="someone/dream", private=True)
    (created, how), (sent, what) = Hub.calls
    assert created == sent == "someone/drawn"
    assert how == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert what["names"] > {"README.md", "manifest.json", "provenance.json", "shard-00002.parquet"}


def test_what_the_hub_refuses_ends_with_the_way_out(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("403")

    monkeypatch.setattr("dlmjoint.publish.command.HfApi", Hub)
    monkeypatch.setattr(Hub, "create_repo", refuse)
    cached(hub, "someone/dream", GOLDEN / "dream")
    with pytest.raises(ConfigError, match=r"403.*hf auth login"):
        publish(trajectories(tmp_path / "drawn"), "someone/drawn", base="someone/dream")
