"""Depth and total variation: how near a decoder is to what the base would do."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.depth import Depth, walk
from dlmjoint.evaluation.metrics.total_variation import TotalVariation
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.unconditional import Unconditional
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.toy import TableModel
from tests.evaluation.test_metrics import evidence, generation


@pytest.fixture(scope="module")
def sampler(base) -> JointSampler:
    """Untrained, far from the identity."""
    torch.manual_seed(3)
    return JointSampler.from_base(base, gain=1.0).eval()


@pytest.fixture(scope="module")
def recorded(base):
    """Exact trajectories; prompts of two lengths, so padding is on the way."""
    import dlmjoint

    prompts = [[501], [501, 70, 71, 72], [501, 9]]
    return dlmjoint.generate(base, prompts, Policy(), 7).trajectories


def by_hand(base, sampler, trajectory, depth):
    """kl, same top, cells at every depth, one state and one row at a time."""
    found = np.zeros((3, depth))
    steps = len(trajectory.order)

    def log_probs(hidden):
        return Draw().prepare(base).log_probs(base.unembed(hidden))

    def canvas(step):
        blank = base.canvas([trajectory.prompt.tolist()], steps)
        blank.tokens[0, blank.response] = trajectory.state(step, base.mask_id)
        return blank

    for start in range(steps):
        hidden = base.predict(canvas(start)).hidden
        for j in range(1, min(depth, steps - 1 - start) + 1):
            now = canvas(start + j)
            if sampler is not None:
                hidden = sampler(base.embed(now.tokens), hidden, now.positions, now.attends)
            masked = now.masked[0]
            exact = log_probs(base.predict(now).hidden[0, masked])
            drawn = log_probs(hidden[0, masked])
            able = exact > -torch.inf
            kl = (exact[able].exp() * (exact[able] - drawn[able])).sum()
            same = (exact.argmax(-1) == drawn.argmax(-1)).sum()
            found[:, j - 1] += [float(kl), int(same), int(masked.sum())]
    return found


@pytest.mark.parametrize("with_sampler", [False, True])
@torch.inference_mode()
def test_the_depth_sums_equal_a_computation_by_hand(base, sampler, recorded, with_sampler):
    policy = Policy(4, refine=Joint(sampler)) if with_sampler else Policy(4)
    sums = walk(base, policy.prepare(base), recorded, depth=3)
    for row, trajectory in enumerate(recorded):
        expected = by_hand(base, sampler if with_sampler else None, trajectory, 3)
        np.testing.assert_allclose(sums[..., row], expected, rtol=1e-4, atol=1e-4)
    # Seven columns: state t leaves 7 - t masks, and depth j is reached at states j .. 6.
    assert sums[2, :, 0].tolist() == [21, 15, 10]


def test_depth_is_scored_per_cell_with_intervals_and_computed_once(base, recorded, tmp_path):
    replays = []

    def replay():
        replays.append(1)
        return base, Policy(4).prepare(base)

    reference = [
        generation(
            prompt=t.prompt.tolist(),
            tokens=t.response.tolist(),
            order=t.order.tolist(),
            log_probs=t.log_probs.tolist(),
        )
        for t in recorded
    ]
    given = replace(evidence([], cache=tmp_path), reference=reference, replay=replay, identity="x")
    found = Depth(depth=2, batch_size=2)(given)
    assert list(found) == ["kl@1", "top1@1", "kl@2", "top1@2"]
    sums = walk(base, Policy(4).prepare(base), recorded, depth=2)
    kl, top, cells = sums.sum(-1)
    for j in (1, 2):
        assert found[f"kl@{j}"].value == pytest.approx(kl[j - 1] / cells[j - 1], rel=1e-4)
        assert found[f"top1@{j}"].value == pytest.approx(top[j - 1] / cells[j - 1], rel=1e-4)
    for one in found.values():
        assert one.low <= one.value <= one.high
        assert one.n == 3
    assert Depth(depth=2, batch_size=2)(given) == found
    assert len(replays) == 1


def test_depth_refuses_what_has_no_kl():
    greedy = Policy(draw=Draw(temperature=0.0))
    with pytest.raises(ConfigError, match="temperature above 0"):
        Depth().check(10, {"greedy": greedy}, greedy)
    with pytest.raises(ConfigError, match="depth is 0"):
        Depth(depth=0)


# Total variation


def product_of_marginals(table: TableModel) -> np.ndarray:
    """What three tokens in one forward are drawn from."""
    joint = table.joint.numpy()
    sides = [joint.sum(tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    product = np.einsum("i,j,k->ijk", *sides)
    return product / product.sum()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The scores of an exact and of two parallel decoders of a table."""
    table = TableModel.random()
    run_dir = tmp_path_factory.mktemp("runs") / "table"
    task = Unconditional(n=2000, max_new_tokens=3, metrics=[TotalVariation()])
    decoders = {"exact": Policy(), "marginals-k2": Policy(2), "marginals-k3": Policy(3)}
    run(table, decoders, [task], run_dir, batch_size=1000)
    return table, score(run_dir, base=table)


def test_a_decoders_total_variation_is_that_of_its_own_distribution(measured):
    table, scores = measured
    found = {
        name: part["tasks"]["unconditional"]["total_variation"]
        for name, part in scores["decoders"].items()
    }
    truth = np.abs(product_of_marginals(table) - table.joint.numpy()).sum() / 2
    assert found["marginals-k3"]["low"] < truth < found["marginals-k3"]["high"]
    exact = table.joint.flatten().numpy()
    own = np.random.default_rng(0).multinomial(2000, exact, size=2000) / 2000
    most = np.quantile(np.abs(own - exact).sum(-1) / 2, 0.999)  # of samples of the table itself
    assert found["exact"]["value"] < most < found["marginals-k2"]["low"]
    assert scores["ceiling"]["unconditional"]["total_variation"] == found["exact"]
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())
    assert all(one["n"] == 2000 for one in found.values())


def test_a_table_has_no_arithmetic_and_its_costs_do_not_claim_any(measured):
    _, scores = measured
    cost = scores["decoders"]["exact"]["cost"]
    assert cost["base_forwards"] == 6000
    assert not {"flops", "bytes"} & set(cost)


def test_a_total_variation_interval_covers_the_truth_about_as_often_as_it_says():
    """Of draws from the product of marginals, whose distance is known."""
    table = TableModel.random()
    drawn_from = product_of_marginals(table)
    truth = np.abs(drawn_from - table.joint.numpy()).sum() / 2
    cells, generator = list(product(range(3), repeat=3)), np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        places = generator.choice(27, size=400, p=drawn_from.flatten())
        lines = [generation(tokens=list(cells[place])) for place in places]
        given = replace(evidence([]), generations=lines, replay=lambda: (table, Policy()))
        one = TotalVariation()(given)["total_variation"]
        covered += one.low <= truth <= one.high
    assert covered >= 53


def test_total_variation_refuses_what_cannot_be_enumerated_before_decoding(base, tmp_path):
    task = Unconditional(n=3, max_new_tokens=3, metrics=[TotalVariation()])
    with pytest.raises(ConfigError, match="too many"):
        run(base, {"exact": Policy()}, [task], tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="own joint"):
        TotalVariation().check(3, {"cold": Policy(draw=Draw(temperature=0.5))}, Policy())
    table = TableModel.random()
    lines = [generation(tokens=[0, 1])]
    given = replace(evidence([]), generations=lines, replay=lambda: (table, Policy()))
    with pytest.raises(ConfigError, match="max_new_tokens is 3"):
        TotalVariation()(given)
