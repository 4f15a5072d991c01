"""Guided diffusion: who may send drafts back."""

from dataclasses import dataclass, replace

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.guide import Gate, NoGuide
from dlmjoint.decoding.guides.accept import (
    Accept,
    Aggressive,
    Agreement,
    MinimumProbability,
    Stochastic,
    TopK,
    TopKRelative,
)
from dlmjoint.decoding.guides.ar_guide import LoadedGuide
from dlmjoint.decoding.order import LeftToRight
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.turn import Turn
from dlmjoint.errors import ConfigError
from dlmjoint.models.base import IMPOSSIBLE, Base
from dlmjoint.models.causal import UNKNOWN, Autoregressive, id_map
from dlmjoint.models.dream import Dream
from dlmjoint.models.load import load_base
from dlmjoint.models.parts.canvas_cache import CanvasMemory, Window
from dlmjoint.random import Noise
from dlmjoint.types import Canvas
from tests.conftest import CHECKPOINTS
from tests.decoding.worlds import GREEDY, LENGTH, PROMPTS, World, sequences


@dataclass(frozen=True)
class OnlyFirst(NoGuide):
    """Lets one draft pass."""

    def begin(
        self, base: Base, canvas: Canvas, policy: Policy, memory: CanvasMemory | None
    ) -> Gate:
        return self

    def check(self, turn: Turn) -> None:
        turn.keep_first(torch.ones_like(turn.passes))


@dataclass(frozen=True)
class BaseItself(NoGuide):
    """Lets pass what the base itself holds most probable."""

    def begin(
        self, base: Base, canvas: Canvas, policy: Policy, memory: CanvasMemory | None
    ) -> Gate:
        return self

    def check(self, turn: Turn) -> None:
        drafts = turn.drafts
        assert drafts is not None
        rows = torch.arange(len(drafts.columns))[:, None].expand_as(drafts.columns)
        best = turn.log_probs(rows.flatten(), drafts.columns.flatten()).argmax(-1)
        agreed = (best.view(drafts.tokens.shape) == drafts.tokens) & drafts.written
        turn.keep_first(agreed.sum(-1))


def test_a_guide_that_lets_one_draft_pass_equals_left_to_right_argmax(world: World) -> None:
    guided = Policy(6, order=LeftToRight(), draw=GREEDY, guide=OnlyFirst())
    plain = Policy(1, order=LeftToRight(), draw=GREEDY)
    assert sequences(world.base, guided) == sequences(world.base, plain)


def test_a_guide_equal_to_the_bases_own_argmax_lets_everything_pass(world: World) -> None:
    guided = Policy(6, order=LeftToRight(), draw=GREEDY, guide=BaseItself())
    out = dlmjoint.generate(world.base, PROMPTS, guided, LENGTH)
    assert out.base_forwards == len(PROMPTS) * LENGTH // 6
    assert out.sequences == sequences(world.base, replace(guided, guide=NoGuide()))


RULES: list[Accept] = [
    TopK(1),
    TopK(5),
    TopKRelative(),
    MinimumProbability(0.05),
    Aggressive(),
    Stochastic(),
    Agreement(),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_every_rule_writes_what_the_base_drafted_in_no_more_forwards(
    world: World, rule: Accept
) -> None:
    """Greedy drafts: wherever a guide stops, the next forward drafts again from the base."""
    policy = Policy(6, order=LeftToRight(), draw=GREEDY, guide=LoadedGuide(world.guide, rule))
    prepared = policy.prepare(world.base)
    canvas = world.base.canvas(PROMPTS, LENGTH)
    for step in decode(world.base, canvas, prepared, Noise(0, (0, 1, 2))):
        with torch.no_grad():
            logits = world.base.unembed(world.base.predict(canvas).hidden)
        logits[..., list(world.base.forbidden_ids)] = -torch.inf
        for commit in step.commits:
            best = logits.argmax(-1).gather(1, commit.columns)
            assert bool(((best == commit.tokens) | ~commit.written).all())
        canvas = step.canvas
        assert (step.guide_passes == step.forwards).all()


def test_only_a_rule_that_compares_marginals_asks_the_bases_head_for_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unembed, asked = world.base.unembed, list[int]()

    def counted(hidden: torch.Tensor) -> torch.Tensor:
        asked.append(hidden.shape[:-1].numel())
        return unembed(hidden)

    monkeypatch.setattr(world.base, "unembed", counted)
    cells = []
    for rule in (TopK(world.base.vocab_size), Agreement(base_weight=1.0)):  # all drafts pass
        asked.clear()
        policy = Policy(3, order=LeftToRight(), guide=LoadedGuide(world.guide, rule))
        sequences(world.base, policy)
        cells.append(sum(asked))
    assert cells == [len(PROMPTS) * LENGTH, 2 * len(PROMPTS) * LENGTH]


def test_a_guides_memory_gives_what_a_fresh_look_at_the_canvas_does(world: World) -> None:
    class Forgetful(CanvasMemory):
        def expect(self, window: Window) -> None:
            pass

        def begin(self, renew: torch.Tensor) -> None:
            super().begin(torch.ones_like(renew))

    @dataclass(frozen=True, eq=False)
    class Fresh(LoadedGuide):
        def begin(
            self, base: Base, canvas: Canvas, policy: Policy, memory: CanvasMemory | None
        ) -> Gate:
            gate = super().begin(base, canvas, policy, memory)
            gate.memory = Forgetful()
            return gate

    for rule in (TopK(8), Stochastic()):
        policy = Policy(5, order=LeftToRight(), guide=LoadedGuide(world.guide, rule))
        again = replace(policy, guide=Fresh(world.guide, rule))
        first = dlmjoint.generate(world.base, PROMPTS, policy, LENGTH)
        second = dlmjoint.generate(world.base, PROMPTS, again, LENGTH)
        assert first.sequences == second.sequences
        assert first.base_forwards == second.base_forwards


def test_a_guide_of_another_vocabulary_is_refused() -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    with pytest.raises(dlmjoint.errors.LoadError, match="does not load"):
        Autoregressive.beside(base, CHECKPOINTS / "tiny-joint")
    with pytest.raises(ConfigError, match="no tokenizer"):
        Autoregressive.beside(Dream.random(), CHECKPOINTS / "tiny-judge")


class Words:
    """A tokenizer that is nothing but a vocabulary."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.vocabulary, self.eos_token = vocabulary, "<end>"

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.vocabulary[token]


def test_tokens_are_matched_by_their_strings_and_ends_with_the_end() -> None:
    base = load_base(CHECKPOINTS / "tiny-dream")
    assert base.tokenizer is not None
    ours = base.tokenizer.get_vocab()
    kept = [token for token, own in ours.items() if own < 400]
    theirs = {"<end>": 0} | {token: number for number, token in enumerate(kept, 1)}
    ids = id_map(base, Words(theirs), "a guide")
    for token, own in ours.items():
        if own < 400:
            assert ids[own] == theirs[token]
    assert ids[base.eos_id] == 0
    assert ids[base.mask_id] == UNKNOWN
    assert ids[base.bos_id] == UNKNOWN
    few = {"<end>": 0} | {token: number for number, token in enumerate(kept[:100], 1)}
    with pytest.raises(ConfigError, match=r"only 100 of the \d+ tokens"):
        id_map(base, Words(few), "a guide")


@torch.no_grad()
def test_a_token_the_guide_lacks_is_never_accepted_and_is_no_context() -> None:
    ids = torch.arange(40)
    ids[7] = UNKNOWN
    model = Autoregressive.random().model
    guide = Autoregressive(model, ids, None, name="lacks 7", end_ids=(0,))
    base = Dream.random()
    canvas = base.canvas([[5, 6]], 6)
    canvas.tokens[0, 2:4] = torch.tensor([7, 8])
    found = guide.predict(canvas).hidden
    assert bool((guide.unembed(found)[..., 7] == IMPOSSIBLE).all())
    without = base.canvas([[5, 6, 8]], 5)
    expected = Autoregressive.random().predict(without).hidden[0, 3]
    torch.testing.assert_close(found[0, 4], expected, atol=2e-5, rtol=1e-4)
    policy = Policy(
        6, order=LeftToRight(), guide=LoadedGuide(guide, MinimumProbability(0.0)), draw=GREEDY
    )
    with torch.no_grad():
        base.network.lm_head.weight[7] = 30 * base.network.lm_head.weight[9]
    out = dlmjoint.generate(base, PROMPTS, policy, LENGTH)
    assert any(7 in sequence for sequence in out.sequences)  # the first draft stays in any case
    assert out.base_forwards > len(PROMPTS) * LENGTH // 6
