"""What is recorded is what happened, and its pieces are the text."""

import pytest
import torch

import dlmjoint
from dlmjoint.decoding.guides.verified import Verified
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint
from dlmjoint.errors import ConfigError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.show.page import data
from dlmjoint.show.pieces import Draft, Speller
from dlmjoint.show.record import Recording, cost_line, follow
from tests.conftest import CHECKPOINTS
from tests.show.scenes import POLICIES, Scene, decoded, shown, tokenizer_of

PROMPT = "<|beginoftext|>Tom has 7 pens."


def _check(scene: Scene) -> None:
    recording, trajectory = scene.recording, scene.trajectory
    assert [w.column for w in recording.written] == trajectory.order.tolist()
    assert [w.prob for w in recording.written] == pytest.approx(trajectory.log_probs.exp().tolist())
    for step in range(recording.last + 1):
        mask = scene.base.mask_id
        assert [mask if i is None else i for i in recording.ids(step)] == scene.state(step)
        pieces = recording.pieces(step)
        assert "".join(piece.text for piece in pieces) == scene.text(step)
        cells = [cell for piece in pieces for cell in range(piece.first, piece.stop)]
        assert cells == list(range(recording.length))


@pytest.mark.parametrize("name", POLICIES)
def test_every_step_is_a_state_of_the_trajectory(tiny: TransformerBase, name: str) -> None:
    _check(decoded(tiny, POLICIES[name], PROMPT))


def test_a_base_that_writes_bytes_at_random_is_shown_as_it_decodes(
    golden_dream: TransformerBase,
) -> None:
    _check(decoded(golden_dream, Policy(3), PROMPT, length=48))


def test_a_hostile_text_is_recorded_as_it_is(hostile: Scene) -> None:
    _check(hostile)


@pytest.mark.parametrize("seed", range(40))
def test_pieces_join_to_the_decode_of_any_bytes(tiny: TransformerBase, seed: int) -> None:
    tokenizer = tokenizer_of(tiny)
    generator = torch.Generator().manual_seed(seed)
    parts = [i for i in range(len(tokenizer)) if "�" in str(tokenizer.decode([i]))]
    chosen = torch.randint(len(parts), (200,), generator=generator).tolist()
    ids: list[int | None] = [parts[place] for place in chosen]
    for place in torch.randint(200, (12,), generator=generator).tolist():
        ids[place] = None if place % 2 else tiny.eos_id
    text = "".join(piece.text for piece in Speller(tokenizer).pieces(ids))
    written = [tiny.mask_id if i is None else i for i in ids]
    assert text == shown(tokenizer, written, tiny.mask_id)


@pytest.mark.parametrize("seed", range(20))
def test_a_draft_has_the_pieces_of_its_ids_whatever_the_order(
    tiny: TransformerBase, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [i for i in range(500) if "�" in str(tokenizer_of(tiny).decode([i]))]
    known = [*tiny.encode("é € 😀 7 pens"), tiny.eos_id, *parts]
    chosen = torch.randint(len(known), (60,), generator=generator).tolist()
    order = torch.randperm(60, generator=generator).tolist()
    ids: list[int | None] = [None] * 60
    speller = Speller(tokenizer_of(tiny))
    draft = Draft(speller, ids)
    while order:
        size = 1 + seed % 4
        cells, order = order[:size], order[size:]
        before = set(draft.pieces)
        gone, came = draft.write({cell: known[chosen[cell]] for cell in cells})
        for cell in cells:
            ids[cell] = known[chosen[cell]]
        assert draft.pieces == speller.pieces(ids)
        assert gone == before - set(draft.pieces)
        assert came == set(draft.pieces) - before


def test_a_character_of_several_tokens_is_one_piece_and_its_neighbours_are_not(
    tiny: TransformerBase,
) -> None:
    pieces = Speller(tokenizer_of(tiny)).pieces(list(tiny.encode("7 😀€")))
    assert [piece.text for piece in pieces] == ["7", " ", "😀", "€"]


def test_a_byte_that_belongs_to_no_character_is_a_piece_of_its_own(tiny: TransformerBase) -> None:
    stray = tiny.encode("é")[1]
    pieces = Speller(tokenizer_of(tiny)).pieces([stray, stray, *tiny.encode("7")])
    assert [piece.text for piece in pieces] == ["�", "�", "7"]


def test_following_a_decoding_writes_what_generate_writes(tiny: TransformerBase) -> None:
    policy = POLICIES["joint"]
    canvas = tiny.canvas([tiny.encode(PROMPT)], 24)
    states = follow(tiny, canvas, policy.prepare(tiny), Noise(5, (0,)))
    lengths = [(recording.last, recording.costs[-1].tokens) for recording in states]
    output = dlmjoint.generate(tiny, [PROMPT], policy, max_new_tokens=24, seed=5)
    recording = list(follow(tiny, canvas, policy.prepare(tiny), Noise(5, (0,))))[-1]
    assert recording.text() == output.texts[0]
    assert recording.ids(recording.last) == output.trajectories[0].response.tolist()
    assert recording.costs[-1].base_forwards == output.base_forwards
    assert recording.costs[-1].sampler_passes == output.sampler_passes
    assert lengths == [(step, cost.tokens) for step, cost in enumerate(recording.costs)]


def test_time_between_two_steps_is_not_counted(
    tiny: TransformerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("dlmjoint.show.record.clock", lambda device: now[0])
    canvas = tiny.canvas([tiny.encode(PROMPT)], 4)
    states = follow(tiny, canvas, Policy().prepare(tiny), Noise(0, (0,)))
    recording = next(states)
    for _ in states:
        now[0] += 10
    assert recording.costs[-1].seconds == 0


def test_a_guide_shows_in_the_cost_and_writes_nothing(tiny: TransformerBase) -> None:
    recording = decoded(tiny, POLICIES["guided"], PROMPT).recording
    assert recording.costs[-1].guide_passes > 0
    assert f"{recording.costs[-1].guide_passes} guide passes" in cost_line(recording.costs[-1])
    assert {entry.writer for entry in recording.written} == {"base"}


def test_every_writer_is_told_apart(tiny: TransformerBase) -> None:
    joint = decoded(tiny, POLICIES["joint"], PROMPT).recording
    early = decoded(tiny, POLICIES["early"], PROMPT).recording
    assert {entry.writer for entry in joint.written} == {"base", "sampler"}
    assert "fill" in {entry.writer for entry in early.written}


def test_a_base_without_a_tokenizer_is_refused(random_dream: Dream) -> None:
    with pytest.raises(ConfigError, match="no tokenizer"):
        Recording(random_dream, random_dream.canvas([[1]], 4))


def test_several_rows_and_anchored_canvases_are_refused(tiny: TransformerBase) -> None:
    with pytest.raises(ValueError, match="one row"):
        Recording(tiny, tiny.canvas([[1], [1]], 4))
    with pytest.raises(ValueError, match="nothing but masks"):
        Recording(tiny, tiny.canvas([[1]], 4).anchor({0: [1]}))


def test_drafts_that_were_taken_back_are_shown_with_their_step(tiny: TransformerBase) -> None:
    sampler = JointSampler.from_pretrained(CHECKPOINTS / "tiny-joint")
    policy = Policy(6, refine=Joint(sampler), guide=Verified()).prepare(tiny)
    canvas = tiny.canvas([[tiny.bos_id]], 16)
    (*_, recording) = follow(tiny, canvas, policy, Noise(1, (0,)))
    content = data(recording, {})
    made = recording.costs[-1]
    drafted = sum(map(len, recording.refused)) + made.tokens
    assert made.canvases < drafted
    assert [len(step["refused"]) for step in content["steps"]] == [*map(len, recording.refused)]
    number = next(n for n, drafts in enumerate(recording.refused) if drafts)
    written = {entry.column for entry in recording.wrote(number)}
    assert not written & {draft.column for draft in recording.refused[number]}
