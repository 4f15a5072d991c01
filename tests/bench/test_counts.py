"""What decoding asks of a device, counted from the operations it dispatches."""

from functools import cache

import pytest
import torch

from dlmjoint.bench.command import bench
from dlmjoint.bench.counts import DECODERS, asked, counting, described
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import CHECKPOINTS

DRAWS_EVERYTHING = {"guide K=4": 8}
"""The decoder that looks at no more cells than it draws, and the most it may write: a draw writes eight
arrays as wide as the vocabulary, five of them noise, where a look writes three: the logits, in their place
their differences to the greatest, and beside them the exponentials."""


@cache
def _models() -> tuple[TransformerBase, JointSampler]:
    base = load_base(CHECKPOINTS / "tiny-dream")
    return base, JointSampler.from_pretrained(CHECKPOINTS / "tiny-joint")


@cache
def _counted(name: str) -> dict[str, float]:
    forwards, counts = asked(*_models(), name, 4, 49)
    # Noise is sent to the device once per decoding, before its first forward.
    counts.waits -= 1
    return described(forwards, counts)


@pytest.mark.parametrize("name", DECODERS)
def test_no_decoder_asks_the_device_more_often_than_the_table_says(name: str) -> None:
    most = DECODERS[name].waits
    if most is not None:
        assert _counted(name)["waits"] <= most


def test_four_joint_tokens_take_half_the_operations_they_took() -> None:
    assert _counted("joint K=4")["operations"] <= 1158 / 2  # when decoding asked at every step


@pytest.mark.parametrize("name", DECODERS)
def test_a_forward_writes_at_most_four_times_its_logits_unless_it_draws_all_it_looks_at(
    name: str,
) -> None:
    assert _counted(name)["vocabulary"] <= DRAWS_EVERYTHING.get(name, 4)


def test_what_makes_the_host_wait_is_counted_and_nothing_else() -> None:
    numbers = torch.arange(6)
    with counting(6) as counts:
        numbers[numbers > 2].sum().item()
        numbers.tolist()
        torch.where(numbers > 2, numbers, 0)
    assert counts.waits == 3
    with counting(6) as counts:
        (numbers.expand(2, 6) + 1).view(2, 1, 6)
    assert counts.vocabulary_bytes == 2 * 6 * 8


def test_the_command_counts_every_decoder(capsys: pytest.CaptureFixture[str]) -> None:
    bench("counts", [str(CHECKPOINTS / "tiny-dream")], [1], [5], device="cpu")
    shown = capsys.readouterr().out
    assert all(name in shown for name in DECODERS)
    assert "waits" in shown
