"""The loss over a large vocabulary: equal to the plain one, in a fraction of its memory."""

from math import log

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div

from dlmjoint.decoding.order import entropy
from dlmjoint.distill.chunked import Cells, divergences
from dlmjoint.distill.losses import (
    CrossEntropy,
    Divergence,
    ForwardKL,
    JensenShannon,
    RankedKL,
    ReverseKL,
    TotalVariation,
    forward_kl,
)
from tests.live_bytes import most_live_bytes

FORBIDDEN = torch.tensor([3, 4, 10])
ALL = [
    ForwardKL(),
    RankedKL(),
    ReverseKL(),
    JensenShannon(0.3),
    TotalVariation(),
    CrossEntropy(),
]


def test_the_forward_kl_is_torchs_in_value_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 5, 9, dtype=torch.float64, generator=generator)
    teacher, student = (x.log_softmax(-1).requires_grad_() for x in (teacher, student))
    ours = forward_kl(teacher, student)
    theirs = kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(ours, theirs)
    weights = torch.arange(5.0, dtype=torch.float64)
    for mine, its in zip(
        torch.autograd.grad(ours @ weights, (teacher, student)),
        torch.autograd.grad(theirs @ weights, (teacher, student)),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


def test_a_token_the_teacher_excludes_counts_nothing_and_one_the_student_excludes_everything() -> (
    None
):
    none, half = -torch.inf, -log(2)
    teacher = torch.tensor([[none, half, half], [half, half, none]])
    student = torch.tensor([[none, half, half], [none, 0.0, none]], requires_grad=True)
    found = forward_kl(teacher, student)
    assert found.tolist() == [0, torch.inf]
    found[0].backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad[0], torch.tensor([0.0, -0.5, -0.5]))


def _log_probs(vocabulary: int, width: int = 6, dtype=torch.float64):
    head = torch.randn(vocabulary, width, dtype=dtype, generator=torch.Generator().manual_seed(1))

    def log_probs(hidden: Tensor) -> Tensor:
        return (hidden @ head.T).index_fill(-1, FORBIDDEN, -torch.inf).log_softmax(-1)

    return log_probs


def _cells(width: int = 6, dtype=torch.float64) -> Cells:
    """Twelve student cells over seven teacher cells, two of which nobody is compared with."""
    generator = torch.Generator().manual_seed(2)
    return Cells(
        student=torch.randn(12, width, dtype=dtype, generator=generator).requires_grad_(),
        teacher=torch.randn(7, width, dtype=dtype, generator=generator),
        owner=torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3, 5, 6, 6]),
        tokens=torch.tensor([0, 1, 2, 5, 6, 7, 8, 9, 11, 0, 1, 2]),
    )


def _eager(
    cells: Cells, divergence: Divergence, log_probs
) -> tuple[Float[Tensor, " M"], Float[Tensor, "M D"]]:
    """The same loss over all cells at once, and its gradient with uneven weights."""
    loss = divergence(log_probs(cells.teacher)[cells.owner], log_probs(cells.student), cells.tokens)
    weights = torch.arange(1, len(loss) + 1, dtype=loss.dtype)
    (slope,) = torch.autograd.grad((weights * loss).sum(), cells.student)
    return loss, slope


@pytest.mark.parametrize("chunk", [1, 5, 12, 100])
@pytest.mark.parametrize("divergence", ALL, ids=lambda d: type(d).__name__)
def test_chunks_of_any_size_give_the_plain_loss_and_gradient(
    divergence: Divergence, chunk: int
) -> None:
    cells, log_probs = _cells(), _log_probs(12)
    expected, expected_slope = _eager(cells, divergence, log_probs)
    loss, uncertain = divergences(cells, log_probs, divergence, chunk)
    weights = torch.arange(1, len(loss) + 1, dtype=loss.dtype)
    (slope,) = torch.autograd.grad((weights * loss).sum(), cells.student)
    assert uncertain is None
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-12, atol=1e-12)
    assert slope.abs().sum() > 0


def test_the_gradient_is_that_of_finite_differences() -> None:
    cells, log_probs = _cells(), _log_probs(12)

    def loss(student: Tensor) -> Tensor:
        some = Cells(student, cells.teacher, cells.owner, cells.tokens)
        return divergences(some, log_probs, ForwardKL(), 5)[0]

    assert torch.autograd.gradcheck(loss, (cells.student,))


@pytest.mark.parametrize("chunk", [2, 12])
def test_entropies_are_the_teachers_where_it_is_compared_with(chunk: int) -> None:
    cells, log_probs = _cells(), _log_probs(12)
    _, found = divergences(cells, log_probs, ForwardKL(), chunk, entropies=True)
    assert found is not None
    seen = cells.owner.unique()
    torch.testing.assert_close(found[seen], entropy(log_probs(cells.teacher))[seen])


def test_a_teacher_is_overwritten_only_where_that_is_asked_for() -> None:
    teacher, student = torch.randn(2, 5, 9).log_softmax(-1)
    kept = teacher.clone()
    expected = forward_kl(teacher, student)
    assert torch.equal(teacher, kept)
    torch.testing.assert_close(forward_kl(teacher, student, overwrite=True), expected)
    assert not torch.equal(teacher, kept)


def test_no_cells_have_no_loss_and_no_gradient() -> None:
    cells = _cells()
    none = Cells(cells.student[:0], cells.teacher[:0], cells.owner[:0], None)
    loss, _ = divergences(none, _log_probs(12), ForwardKL(), 4)
    assert loss.shape == (0,)
    (slope,) = torch.autograd.grad(loss.sum(), cells.student, allow_unused=True)
    assert slope is None or not slope.any()


def test_a_loss_holds_one_chunk_of_logits_and_the_plain_one_holds_all() -> None:
    vocabulary, chunk = 20_000, 8
    log_probs = _log_probs(vocabulary, dtype=torch.float32)
    student = torch.randn(128, 6).requires_grad_()
    cells = Cells(student, torch.randn(128, 6), torch.arange(128))

    def chunked() -> Tensor:
        return torch.autograd.grad(
            divergences(cells, log_probs, ForwardKL(), chunk)[0].sum(), student
        )[0]

    def plain() -> Tensor:
        loss = ForwardKL()(log_probs(cells.teacher), log_probs(student))
        return torch.autograd.grad(loss.sum(), student)[0]

    of_a_chunk = 4 * chunk * vocabulary
    assert most_live_bytes(chunked) <= 5 * of_a_chunk
    assert most_live_bytes(plain) >= 3 * 4 * 128 * vocabulary


@pytest.mark.parametrize("divergence", ALL[:5], ids=lambda d: type(d).__name__)
def test_a_divergence_is_zero_for_equals_and_positive_otherwise(divergence: Divergence) -> None:
    a, b = _log_probs(12)(torch.randn(2, 5, 6, dtype=torch.float64))
    torch.testing.assert_close(divergence(a.clone(), a), torch.zeros(5, dtype=torch.float64))
    assert (divergence(a, b) > 0).all()


def test_divergences_have_their_textbook_values() -> None:
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.75, 0.0]])
    forward = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(0.5 / 0.75).log()
    reverse = 0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log()
    torch.testing.assert_close(ForwardKL()(p.log(), q.log()), forward[None])
    torch.testing.assert_close(ReverseKL()(p.log(), q.log()), reverse[None])
    torch.testing.assert_close(TotalVariation()(p.log(), q.log()), torch.tensor([0.25]))
    apart = torch.tensor([[1.0, 1e-9]]).log(), torch.tensor([[1e-9, 1.0]]).log()
    torch.testing.assert_close(
        JensenShannon()(*apart), torch.tensor([2.0]).log(), atol=1e-6, rtol=0
    )
    ranked = RankedKL(weight=2.0)(torch.tensor([[0.5, 0.5, 0.0]]).log(), q.log())
    apart_by = (torch.tensor(2.0).log() / entropy(q.log())).log().square()  # halved, and twice
    torch.testing.assert_close(ranked, forward + apart_by, atol=1e-4, rtol=0)
    surprise = CrossEntropy()(p.log(), q.log(), torch.tensor([1]))
    torch.testing.assert_close(surprise, -torch.tensor([0.75]).log())
