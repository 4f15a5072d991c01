"""Training while generating: the windows are the decoding's own, and the stream resumes exactly."""

from itertools import islice, pairwise
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from dlmjoint.decoding.policy import Policy
from dlmjoint.distill.losses import CrossEntropy
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.objective import Objective
from dlmjoint.distill.online import Lanes, Online, OnlineData
from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.errors import ConfigError
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.trajectories.generate import generate
from dlmjoint.trajectories.prompts import Unconditional
from dlmjoint.trajectories.store import TrajectoryStore
from tests.conftest import GOLDEN
from tests.distill.trainer import small_trainer

BASE = str(GOLDEN / "dream")
COLUMNS, WINDOW = 11, 4


@pytest.fixture(scope="module")
def base() -> TransformerBase:
    return load_base(BASE)


def _lanes(base: TransformerBase, **settings) -> Lanes:
    assert base.bos_id is not None
    prompts = [[base.bos_id], [base.bos_id, 7, 8], [base.bos_id, 9]]
    values = {"max_new_tokens": COLUMNS, "window": WINDOW, "lanes": 2, "rows": 3, "seed": 4}
    return Lanes(base, Policy().prepare(base), prompts, **{**values, **settings})


def _same(a: UnrollBatch, b: UnrollBatch) -> bool:
    assert a.hidden is not None
    assert b.hidden is not None
    return torch.equal(a.states, b.states) and torch.equal(a.hidden, b.hidden)


def test_the_hidden_states_of_a_window_are_the_bases_on_its_states(base: TransformerBase) -> None:
    for batch in islice(_lanes(base).of(0, 0), 6):
        assert batch.hidden is not None
        expected = base.predict(batch.canvas()).hidden.unflatten(0, batch.states.shape[:2])
        masked = batch.masked
        torch.testing.assert_close(batch.hidden[masked], expected[masked], rtol=1e-4, atol=1e-5)
        left = masked.sum(-1)
        steps = left[:, :-1] - left[:, 1:]
        assert ((steps == 1) | (left[:, 1:] == 0)).all()


def test_windows_of_a_round_share_an_end_and_cover_every_state_once(base: TransformerBase) -> None:
    lanes = _lanes(base)
    for turn in range(20):
        bounds = lanes._bounds(1, turn)
        assert bounds[0][0] == 0
        assert bounds[-1][1] == COLUMNS - 1
        assert all(end == start for (_, end), (start, _) in pairwise(bounds))
        assert all(0 < end - start < WINDOW for start, end in bounds)


def test_a_lane_can_begin_anywhere(base: TransformerBase) -> None:
    whole = list(islice(_lanes(base).of(1, 0), 9))
    for skip in (1, 4, 7):
        assert _same(next(_lanes(base).of(1, skip)), whole[skip])


def test_processes_share_out_the_lanes(base: TransformerBase) -> None:
    whole = next(iter(Online(_lanes(base), 2, 0, 1)))
    parts = [next(iter(Online(_lanes(base), 2, rank, 2))) for rank in (0, 1)]
    assert whole.places == parts[0].places + parts[1].places
    rows = torch.cat([part.states[:, :, -COLUMNS:] for part in parts])
    assert torch.equal(whole.states[:, :, -COLUMNS:], rows)


def test_lanes_are_at_different_stages(base: TransformerBase) -> None:
    first = next(iter(Online(_lanes(base), 0, 0, 1)))
    left = first.masked.sum(-1)[:, 0]
    assert left[0] != left[-1]


def _trainer(root: Path, steps: int, *callbacks: L.Callback) -> L.Trainer:
    return small_trainer(root, steps, *callbacks, limit_val_batches=1, val_check_interval=10)


def _data(n: int = 14, **settings) -> OnlineData:
    values = {"max_new_tokens": COLUMNS, "batch_size": 4, "window": WINDOW, "lanes": 2}
    return OnlineData(Unconditional(n), **{**values, "val_examples": 2, "seed": 3, **settings})


def test_an_online_fit_learns_and_its_by_product_is_what_generate_draws(tmp_path: Path) -> None:
    module = Distillation(BASE, depth=3)
    trainer = _trainer(tmp_path, 120)
    trainer.fit(module, _data(save=tmp_path / "drawn"))
    found = trainer.callback_metrics
    assert all(found[f"val/kl@{j}"] < found[f"val/marginal_kl@{j}"] for j in (1, 2, 3))
    drawn = TrajectoryStore.open(tmp_path / "drawn")
    expected = generate(
        BASE,
        tmp_path / "expected",
        Unconditional(12),
        max_new_tokens=COLUMNS,
        shard_size=2,
        seed=3,
        device="cpu",
    )
    assert drawn.manifest == expected.manifest
    assert not drawn.missing()
    for mine, theirs in zip(drawn.trajectories(), expected.trajectories(), strict=True):
        assert torch.equal(mine.response, theirs.response)
        assert torch.equal(mine.order, theirs.order)


def test_a_resumed_online_fit_ends_with_the_uninterrupted_layer(tmp_path: Path) -> None:
    whole = Distillation(BASE, depth=3)
    _trainer(tmp_path / "whole", 9).fit(whole, _data())
    first = Distillation(BASE, depth=3)
    keep = ModelCheckpoint(tmp_path, "five", every_n_train_steps=5)
    _trainer(tmp_path, 7, keep).fit(first, _data())
    resumed = Distillation(BASE, depth=3)
    _trainer(tmp_path, 9).fit(
        resumed, _data(), ckpt_path=tmp_path / "five.ckpt", weights_only=False
    )
    for name, tensor in whole.sampler.state_dict().items():
        assert torch.equal(resumed.sampler.state_dict()[name], tensor)


def test_a_loss_on_final_tokens_is_refused_online(tmp_path: Path) -> None:
    module = Distillation(BASE, depth=3, objective=Objective(CrossEntropy()))
    with pytest.raises(ConfigError, match="do not show the tokens they end in"):
        _trainer(tmp_path, 1).fit(module, _data())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lanes": 3}, "multiple of lanes=3"),
        ({"window": 12}, "responses have 11 states"),
        ({"val_examples": 14}, "14 prompts, of which 14"),
    ],
)
def test_online_settings_that_cannot_work_are_refused(
    tmp_path: Path, settings: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _trainer(tmp_path, 1).fit(Distillation(BASE, depth=3), _data(**settings))


def test_prompts_of_different_lengths_are_padded_on_the_left(base: TransformerBase) -> None:
    batch = next(iter(Online(_lanes(base, rows=1), 0, 0, 1)))
    assert batch.response.stop == batch.states.shape[2]
    assert batch.attends.sum(-1).tolist() == [COLUMNS + 1, COLUMNS + 3]
