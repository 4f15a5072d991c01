"""What decoding asks of a device, counted from the operations it dispatches."""

import pytest
import torch

from dlmjoint.bench.counting import Counts, counting
from dlmjoint.decoding.confidence import ConfidenceThreshold
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.end_of_text import EndOfText
from dlmjoint.decoding.entropy_bound import EntropyBound
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Trained
from dlmjoint.models.load import load_base
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from tests.conftest import CHECKPOINTS

JOINT = Trained(CHECKPOINTS / "tiny-joint")
STEADY = {
    "exact": Policy(),
    "marginals": Policy(4),
    "joint": Policy(4, refine=JOINT),
    "joint greedy": Policy(4, refine=JOINT, draw=Draw(temperature=0)),
}
LOOKING = {
    "end of text": Policy(4, early=EndOfText()),
    "threshold": Policy(ConfidenceThreshold(0.9)),
    "entropy bound": Policy(EntropyBound(0.5)),
}


@pytest.fixture(scope="module")
def base() -> TransformerBase:
    return load_base(CHECKPOINTS / "tiny-dream")


def _counted(base: TransformerBase, policy: Policy) -> tuple[int, Counts]:
    """Forwards of a decoding and what it counts, after one that made all constants."""
    prepared, noise = policy.prepare(base), Noise(0, (0, 1, 2, 3))
    canvas = base.canvas([[1]] * 4, 24)
    list(decode(base, canvas, prepared, noise))
    with counting(base.vocab_size) as counts:
        forwards = sum(1 for _ in decode(base, canvas, prepared, noise))
    return forwards, counts


@pytest.mark.parametrize("name", STEADY)
def test_a_steady_decoder_asks_the_device_once_per_forward(
    base: TransformerBase, name: str
) -> None:
    forwards, counts = _counted(base, STEADY[name])
    # Beyond them: the noise's seeds are sent once, and the end is noticed once.
    assert counts.waits <= forwards + 2


@pytest.mark.parametrize("name", LOOKING)
def test_a_decoder_that_looks_at_probabilities_asks_twice(base: TransformerBase, name: str) -> None:
    forwards, counts = _counted(base, LOOKING[name])
    gone = 4  # rows may leave one by one; whether those that stay are padded is then asked again
    assert counts.waits <= 2 * forwards + 2 + gone


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
