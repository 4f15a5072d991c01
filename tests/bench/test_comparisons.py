"""What is compared does the same work: the plain loops write and learn what ours do."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from dlmjoint.bench import fit, kl
from dlmjoint.bench.command import bench
from dlmjoint.bench.fit import LONGER, ONLINE, OURS, PRESET, RECIPES, RENDERED, Bench
from dlmjoint.bench.measure import Measured, against, host_growth
from dlmjoint.bench.on_base import half_written, ideal_ratio, masks_left
from dlmjoint.bench.stand_ins.base import config_of, folder_of, write_random_base
from dlmjoint.bench.stand_ins.paper import paper_decode, paper_loss
from dlmjoint.bench.suite import Setting, find_suite
from dlmjoint.bench.table import lines_of
from dlmjoint.costs import arithmetic
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.distill import chunked
from dlmjoint.distill.chunked import chunk_size
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.pairs import OneDepth
from dlmjoint.distill.unrolling.unroll import collate
from dlmjoint.errors import ConfigError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.random import Noise
from dlmjoint.types import Trajectory
from tests.bench.test_bench import SMALL
from tests.conftest import GOLDEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Dream with room for the paper's 127 columns."""
    folder = tmp_path_factory.mktemp("small")
    values = config_of("dream-7b") | SMALL["dream-7b"] | {"max_position_embeddings": 128}
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
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "DEPTHS", (3,))
    # Memory is that of a process of its own: of two recipes it will do.
    two = iter([host_growth] * 2)
    monkeypatch.setattr(fit, "host_growth", lambda *asked: next(two, _unknown)(*asked))
    records = list(find_suite(name).run(_setting(folder, tmp_path), lambda text: None))
    assert records
    for record in records:
        (baseline, *others) = record["measured"].values()
        assert "ratio" not in baseline
        for one in others:
            assert one["ratio"]["low"] <= one["ratio"]["median"] <= one["ratio"]["high"]
            assert one["share_of_ideal"]["median"] > 0
    assert len(lines_of(records)) == sum(len(record["measured"]) for record in records)


def _unknown(*asked: object) -> None:
    """As where the system does not say how much memory a process takes."""


@pytest.fixture
def module(folder: Path) -> Distillation:
    return Distillation(str(folder), depth=7)


def test_every_pair_that_is_counted_has_cells_in_the_loss(module: Distillation) -> None:
    bench = Bench(module, length=12, batch_size=2, depth=3)
    nine, ten = 8 + 7 + 6, 9 + 8 + 7  # responses of 11 tokens have windows of ten states at most
    for name, pairs in {PRESET: 1, RENDERED: 1, OURS: nine, LONGER: ten, ONLINE: nine}.items():
        batches = bench.batches(name)
        assert bench.steps(name, batches) == 2 * pairs * len(batches)
        for batch in batches:
            assert batch.masked.any(-1).all()


def test_the_papers_depths_come_as_often_as_its_recipe_draws_them(module: Distillation) -> None:
    bench = Bench(module, length=12, batch_size=2, depth=3)
    drawn = [len(bench.plan(PRESET, batch).weights) for batch in bench.batches(PRESET)]
    shares = [drawn.count(depth) / len(drawn) for depth in (1, 2, 3)]
    assert shares == pytest.approx([0.481, 0.292, 0.227], abs=0.05)  # softmax(1, 1/2, 1/4)


def test_the_ideal_is_what_counting_gives(module: Distillation) -> None:
    bench = Bench(module, length=12, batch_size=2, depth=3)
    work = {name: bench.work(name, bench.batches(name)) for name in RECIPES}
    assert work[PRESET]["base_forwards"] == work[RENDERED]["base_forwards"] == 2
    assert work[OURS]["base_forwards"] == 9 / 21
    assert work[LONGER]["base_forwards"] == 10 / 24
    assert work[ONLINE]["base_forwards"] == 0
    assert work[OURS]["sampler_passes"] == 1
    assert 1.5 < work[PRESET]["sampler_passes"] < 2  # 1.746 over all draws
    assert work[RENDERED]["head_columns"] > 2 * work[PRESET]["head_columns"]
    assert work[ONLINE]["flops"] < work[OURS]["flops"] < work[PRESET]["flops"]


def test_a_stored_trajectory_is_fifty_times_smaller_than_its_states(
    folder: Path, tmp_path: Path
) -> None:
    setting = replace(_setting(folder, tmp_path), lengths=[56, 128])
    short, long = find_suite("storage").run(setting, lambda text: None)
    assert [short["length"], long["length"]] == [56, 128]
    assert short["measured"]["a stored trajectory"]["bytes_ratio"] >= 50
    assert long["measured"]["a stored trajectory"]["bytes_ratio"] >= 100  # 50 of the least states


def test_the_chunked_loss_takes_less_memory_than_the_eager_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kl, "WIDTH", {"cpu": 8})
    cells = 4 * chunk_size(kl.VOCABULARY, torch.device("cpu"))
    monkeypatch.setattr(kl, "CELLS", {"cpu": (cells,)})
    setting = replace(_setting(tmp_path, tmp_path), repeats=1)
    (record,) = kl.KL().run(setting, lambda text: None)
    found = record["measured"][kl.CHUNKED]
    if found["extra_bytes"] is None:
        pytest.skip("the system does not tell a process its peak memory")
    assert found["bytes_ratio"] > 2


def test_both_ways_to_the_loss_give_the_same_value_and_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunked, "CPU_LOGITS", 3 * 50)
    problem = kl.Problem.drawn((7, 50, 4), torch.device("cpu"), torch.float32)
    eager, in_chunks = problem._eager(), problem._chunked()
    torch.testing.assert_close(in_chunks, eager)
    found = [torch.autograd.grad(one.sum(), problem.student)[0] for one in (eager, in_chunks)]
    torch.testing.assert_close(found[1], found[0])
    assert bool(found[0].any())


def test_memory_is_that_of_a_process_of_its_own() -> None:
    grown = host_growth(_buffer, 1 << 26)
    if grown is None:
        pytest.skip("the system does not tell a process its peak memory")
    assert grown == pytest.approx(1 << 26, rel=0.1)


def _buffer(size: int) -> Callable[[], object]:
    return partial(torch.ones, size, dtype=torch.uint8)


@pytest.mark.parametrize("commits", [1, 8])
def test_half_of_a_response_is_masked_on_average(commits: int, random_dream: Dream) -> None:
    left = masks_left(128, commits, forwards=8)
    last = left - commits * 8
    assert (left + last) / 2 == pytest.approx(127 / 2, abs=0.5)
    assert masks_left(12, commits, forwards=100) == 11
    canvas = half_written(random_dream, 3, 12, 4)
    assert canvas.masked.sum(-1).tolist() == [4, 4, 4]
    assert canvas.tokens.shape == (3, 12)


def test_the_ideal_of_one_token_per_forward_is_the_spared_logits() -> None:
    base = Dream
    size = arithmetic.measure(base, base.read_config(config_of("dream-7b")))
    assert ideal_ratio(size, 128, 1, 64, 8) == pytest.approx(
        arithmetic.forward_flops(size, 128, 128, 128)
        / arithmetic.forward_flops(size, 128, 128, 60.5 + 1),
        rel=1e-3,
    )
    assert 1 < ideal_ratio(size, 128, 1, 64, 8) < ideal_ratio(size, 128, 4, 64, 8) < 2


def test_ratios_are_taken_within_a_repeat_and_beside_the_ideal() -> None:
    found = {"slow": Measured([2.0, 4.0], 10, None), "fast": Measured([1.0, 1.0], 10, None)}
    told = against(found, "slow", "things", {"fast": 4.0})
    assert told["fast"]["ratio"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert told["fast"]["share_of_ideal"] == {"median": 0.75, "low": 0.5, "high": 1.0}
    assert against({"slow": found["slow"], "fast": None}, "slow", "things", {})["fast"] == {
        "out_of_memory": True
    }


def test_a_skeleton_has_as_many_layers_as_it_says() -> None:
    assert config_of("dream-7b:2")["num_hidden_layers"] == 2
    assert config_of("llada-8b:3")["n_layers"] == 3
    with pytest.raises(ConfigError, match="number of layers"):
        config_of("dream-7b:few")


def test_a_folders_skeleton_is_of_its_kind_with_random_weights(
    folder: Path, tmp_path: Path
) -> None:
    setting = _setting(folder, tmp_path)
    written = folder_of(f"{folder}:3", setting, lambda text: None)
    assert written.parent == tmp_path
    assert load_base(written).config.num_hidden_layers == 3
    assert load_base(written).hidden_size == load_base(folder).hidden_size
    with pytest.raises(ConfigError, match="nor a folder with a config"):
        config_of(f"{tmp_path / 'nowhere'}:3")


def test_all_comparisons_are_one_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kl, "WIDTH", {"cpu": 8})
    monkeypatch.setattr(kl, "CELLS", {"cpu": (2,)})
    monkeypatch.setattr(fit, "host_growth", lambda *arguments: None)
    output = tmp_path / "all.json"
    bench(
        models=[str(folder)], batch_sizes=[1], lengths=[12], forwards=1, repeats=1,
        device="cpu", output=output, workdir=tmp_path,
    )  # fmt: skip
    for word in ("the paper's recipe", "a chunk at a time", "ours, K = 8", "stored trajectory"):
        assert word in output.read_text()
