"""What is compared does the same work: the plain loops write and learn what ours do."""

from pathlib import Path

import pytest
import torch

from dlmjoint.bench import kl
from dlmjoint.bench.command import bench
from dlmjoint.bench.fit import OURS, PRESET, RENDERED, Bench
from dlmjoint.bench.fit_step import random_trajectories
from dlmjoint.bench.measure import Measured, against
from dlmjoint.bench.paper import paper_decode, paper_loss
from dlmjoint.bench.random_base import published_config, write_random_base
from dlmjoint.bench.suite import Setting, find_suite
from dlmjoint.bench.table import lines_of
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.pairs import OneDepth
from dlmjoint.distill.unroll import collate
from dlmjoint.errors import ConfigError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.random import Noise
from dlmjoint.types import Trajectory
from tests.bench.test_bench import SMALL
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Dream with room for the paper's 127 columns."""
    folder = tmp_path_factory.mktemp("small")
    values = published_config("dream-7b") | SMALL["dream-7b"] | {"max_position_embeddings": 128}
    write_random_base(folder, values, torch.float32)
    return folder


@pytest.mark.parametrize("commits", [1, 3])
def test_the_papers_loop_writes_what_ours_does(
    commits: int, random_dream: Dream, random_sampler: JointSampler
) -> None:
    assert random_dream.bos_id is not None
    canvas = random_dream.canvas([[random_dream.bos_id]] * 2, 11)
    policy = Policy(commits, refine=Joint(random_sampler), draw=Draw(temperature=0.0))
    steps = list(decode(random_dream, canvas, policy.prepare(random_dream), Noise(0, (0, 1))))
    theirs = list(paper_decode(random_dream, random_sampler, canvas, commits, greedy=True))
    assert len(theirs) == len(steps)
    for step, canvas_there in zip(steps, theirs, strict=True):
        assert torch.equal(step.canvas.tokens, canvas_there.tokens)


def test_the_papers_loss_rendered_plainly_is_the_presets() -> None:
    module = Distillation(str(GOLDEN / "dream"), depth=3, pairs=OneDepth(skip_padding=False))
    trajectory = Trajectory(
        0, torch.tensor([1, 5]), torch.arange(2, 11), torch.randperm(9), torch.zeros(9)
    )
    batch = collate([trajectory, trajectory], [0, 3], 4, module.base.mask_id, 0, seed=2)
    found, loss, _ = module.losses(batch)
    expected = paper_loss(module.base, module.sampler, batch, int(found.depth[0]))
    torch.testing.assert_close(loss.sum(), expected.sum(), rtol=1e-4, atol=1e-4)
    assert loss.shape == expected.shape


def _setting(folder: Path, workdir: Path) -> Setting:
    return Setting([str(folder)], [2], [12], 2, 2, "cpu", "float32", workdir)


@pytest.mark.parametrize("name", ["decode", "generate", "fit"])
def test_a_comparison_has_a_baseline_and_ratios_to_it(
    name: str, folder: Path, tmp_path: Path
) -> None:
    records = list(find_suite(name).run(_setting(folder, tmp_path), lambda text: None))
    assert records
    for record in records:
        (baseline, *others) = record["measured"].values()
        assert "ratio" not in baseline
        for one in others:
            assert one["ratio"]["low"] <= one["ratio"]["median"] <= one["ratio"]["high"]
    assert len(lines_of(records)) == sum(len(record["measured"]) for record in records)


def test_pairs_are_those_of_the_plans(folder: Path, tmp_path: Path) -> None:
    module = Distillation(str(folder), depth=7)
    store = random_trajectories(module.base, tmp_path / "t", 4, 12)
    record = Bench(module, store, 2, 3, torch.device("cpu")).record(_setting(folder, tmp_path))
    assert record["pairs"] == {PRESET: 4 * 2 * 1, OURS: 4 * 2 * (7 + 6 + 5)}
    counts = {name.partition(", depth")[0]: m["count"] for name, m in record["measured"].items()}
    assert counts[PRESET] == counts[RENDERED] == record["pairs"][PRESET]
    assert counts[OURS] == record["pairs"][OURS]


def test_a_stored_trajectory_is_fifty_times_smaller_than_its_states(
    folder: Path, tmp_path: Path
) -> None:
    (record,) = find_suite("storage").run(_setting(folder, tmp_path), lambda text: None)
    assert record["length"] == 128
    assert record["measured"]["a stored trajectory"]["bytes_ratio"] >= 50


def test_the_chunked_loss_takes_less_memory_than_the_eager_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kl, "WIDTH", {"cpu": 8})
    monkeypatch.setattr(kl, "CELLS", 256)
    (record,) = kl.KL().run(_setting(tmp_path, tmp_path), lambda text: None)
    chunked = record["measured"][kl.CHUNKED]
    if chunked["peak_bytes"] is None:
        pytest.skip("the system does not tell this process its peak memory")
    assert chunked["bytes_ratio"] > 3


def test_ratios_are_taken_within_a_repeat_and_beside_the_ideal() -> None:
    found = {"slow": Measured([2.0, 4.0], 10, None), "fast": Measured([1.0, 1.0], 10, None)}
    told = against(found, "slow", "things", {"fast": 4.0})
    assert told["fast"]["ratio"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert told["fast"]["share_of_ideal"] == {"median": 0.75, "low": 0.5, "high": 1.0}
    assert against({"slow": found["slow"], "fast": None}, "slow", "things", {})["fast"] == {
        "out_of_memory": True
    }


def test_a_skeleton_has_as_many_layers_as_it_says() -> None:
    assert published_config("dream-7b:2")["num_hidden_layers"] == 2
    assert published_config("llada-8b:3")["n_layers"] == 3
    with pytest.raises(ConfigError, match="number of layers"):
        published_config("dream-7b:few")


def test_all_comparisons_are_one_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kl, "WIDTH", {"cpu": 8})
    monkeypatch.setattr(kl, "CELLS", 16)
    output = tmp_path / "all.json"
    bench(
        models=[str(folder)], batch_sizes=[1], lengths=[12], forwards=1, repeats=1,
        device="cpu", output=output, workdir=tmp_path,
    )  # fmt: skip
    for word in ("the paper's recipe", "a chunk at a time", "ours, K = 8", "stored trajectory"):
        assert word in output.read_text()
