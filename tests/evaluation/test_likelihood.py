"""Log-likelihoods by masking: exact where the joint is a table, unbiased where they are sampled."""

from itertools import product

import pytest
import torch

from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.likelihood import Answer, log_likelihoods, masks_of
from dlmjoint.models.sdar import Sdar
from dlmjoint.models.toy import TableModel

CELLS = list(product(range(3), repeat=3))


def _answers(table: TableModel) -> list[Answer]:
    assert table.bos_id is not None
    return [Answer((table.bos_id,), cell) for cell in CELLS]


def test_with_all_masks_weighed_it_is_the_tables_log_probability(table):
    found = log_likelihoods(table, _answers(table), samples=7)
    exact = [table.joint[cell].log().item() for cell in CELLS]
    assert found == pytest.approx(exact, abs=1e-5)


def test_the_estimate_is_unbiased_and_within_its_error(table):
    answers = _answers(table)[::5]
    runs = torch.tensor([log_likelihoods(table, answers, samples=6, seed=s) for s in range(200)])
    error = runs.std(0) / len(runs) ** 0.5
    exact = torch.tensor([table.joint[answer.tokens].log() for answer in answers])
    assert bool((runs.std(0) > 0.01).any()), "six samples of seven masks are an estimate"
    assert bool(((runs.mean(0) - exact).abs() < 4 * error + 1e-5).all())


def test_more_samples_leave_less_error(random_dream):
    answer = [Answer((1,), tuple(range(10, 22)))]

    def spread(samples: int) -> float:
        runs = [
            log_likelihoods(random_dream, answer, samples, seed, batch_size=64)[0]
            for seed in range(12)
        ]
        return torch.tensor(runs).std().item()

    assert spread(64) < spread(4) / 2


def test_the_weights_of_all_masks_make_every_token_count_once():
    masks, weights = masks_of(5, samples=31, seed=0)
    assert len(masks) == 31
    assert (masks.double() * weights[:, None]).sum(0).tolist() == pytest.approx([1.0] * 5)


def test_sampled_masks_are_of_every_size_alike_and_weigh_one_token_each():
    masks, weights = masks_of(8, samples=80, seed=3)
    assert masks.sum(-1).bincount().tolist() == [0] + [10] * 8
    assert (masks.sum(-1) * weights * 80).tolist() == pytest.approx([8.0] * 80)


def test_it_depends_on_seed_prompt_and_answer_alone(random_dream):
    answers = [Answer((1, 2, 3), tuple(range(5, 14))), Answer((4,), (9, 8)), Answer((1,), (7,) * 9)]
    found = log_likelihoods(random_dream, answers, samples=10, seed=1)
    batched = log_likelihoods(random_dream, answers[::-1], samples=10, seed=1, batch_size=16)
    assert batched[::-1] == pytest.approx(found, rel=1e-5)
    assert log_likelihoods(random_dream, answers[:1], samples=10, seed=1) == found[:1]
    assert log_likelihoods(random_dream, answers[:1], samples=10, seed=2) != found[:1]


def test_one_token_takes_one_forward(random_dream, monkeypatch):
    rows = []
    predict = random_dream.predict

    def counted(canvas, *more):
        rows.append(len(canvas.tokens))
        return predict(canvas, *more)

    monkeypatch.setattr(random_dream, "predict", counted)
    log_likelihoods(random_dream, [Answer((1, 2), (3,))], samples=128, batch_size=8)
    assert rows == [1]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Answer((), (1,)), "at least one token"),
        (Answer((1,), ()), "at least one token"),
        (Answer((1,), (4,)), "no token of text"),
        (Answer((1,), (1,) * 90), "91 tokens, more than the 67"),
    ],
)
def test_an_answer_that_cannot_be_scored_is_refused(table, answer, word):
    with pytest.raises(ConfigError, match=word):
        log_likelihoods(table, [answer])


def test_over_blocks_it_is_the_chain_of_blocks_each_given_the_finished_ones():
    base = Sdar.random()
    prompt, tokens = (1, 2, 3, 4, 5, 6), tuple(range(10, 19))  # 2, 4 and 3 in blocks of four
    (found,) = log_likelihoods(base, [Answer(prompt, tokens)], samples=15)
    expected = 0.0
    for first, end in [(6, 8), (8, 12), (12, 15)]:
        masks, weights = masks_of(end - first, samples=15, seed=0)
        for mask, weight in zip(masks, weights.tolist(), strict=True):
            # Beside it the whole answer stands on one canvas, and behind the block nothing is masked.
            row = torch.tensor([[*prompt, *tokens, base.mask_id]])
            hidden = torch.zeros_like(row, dtype=torch.bool)
            hidden[0, first:end] = mask
            logits = base.score(row.masked_fill(hidden, base.mask_id))[1][0].double()
            logits[:, list(base.forbidden_ids)] = -torch.inf
            log_probs = logits.log_softmax(-1).gather(-1, row.T)[:, 0]
            expected += weight * log_probs[hidden[0]].sum().item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_probabilities_of_all_answers_over_the_edge_of_a_block_sum_to_one():
    base = Sdar.random()
    words = [word for word in range(base.vocab_size) if word not in base.forbidden_ids]
    answers = [Answer((5, 6, 7), pair) for pair in product(words, repeat=2)]
    found = torch.tensor(log_likelihoods(base, answers, batch_size=512), dtype=torch.float64)
    assert found.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_over_blocks_it_depends_on_seed_prompt_and_answer_alone():
    base = Sdar.random()
    answers = [Answer((1, 2, 3), tuple(range(5, 14))), Answer((4,), (9, 8)), Answer((1,), (7,) * 9)]
    found = log_likelihoods(base, answers, samples=10, seed=1)
    batched = log_likelihoods(base, answers[::-1], samples=10, seed=1, batch_size=16)
    assert batched[::-1] == pytest.approx(found, rel=1e-5)
    assert log_likelihoods(base, answers[:1], samples=10, seed=1) == pytest.approx(found[:1])


def test_an_answer_that_ends_where_the_base_does_has_a_likelihood_over_blocks():
    base = Sdar.random()
    (whole,) = log_likelihoods(base, [Answer((5,) * 60, (6,) * 4)])
    assert whole < 0
    with pytest.raises(ConfigError, match="65 tokens, more than the 64"):
        log_likelihoods(base, [Answer((5,) * 60, (6,) * 5)])
