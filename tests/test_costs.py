"""What is said to be spent is held against hand calculation and against what torch counts."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dlmjoint.costs import arithmetic, memory, speed
from dlmjoint.costs.arithmetic import Setting, Size
from dlmjoint.decoding.caches.exact_blocks import ExactBlocks
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Marginals
from dlmjoint.distill.chunked import GPU_LOGITS, Cells, divergences
from dlmjoint.distill.losses import ForwardKL
from dlmjoint.distill.module import Distillation
from dlmjoint.distill.unrolling.unroll import UnrollBatch
from dlmjoint.errors import ConfigError
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import find_family, load_base
from dlmjoint.models.sdar import Sdar
from dlmjoint.random import Noise
from tests.conftest import CHECKPOINTS, PUBLISHED
from tests.live_bytes import most_live_bytes

TINY = CHECKPOINTS / "tiny-dream"


def _size(name: str) -> Size:
    values = json.loads((PUBLISHED / f"{name}.json").read_text())
    family = find_family(values["model_type"])
    return arithmetic.measure(family, family.read_config(values))


@pytest.fixture(scope="module")
def dream() -> Size:
    return _size("dream-7b")


@pytest.fixture(scope="module")
def llada() -> Size:
    return _size("llada-8b")


@pytest.fixture(scope="module")
def tiny():
    """The tiny Dream, a sampler over it that changes something, and their size."""
    base = load_base(TINY)
    sampler = JointSampler.from_base(base)
    return base, sampler, arithmetic.measure(type(base), base.config)


def _flops(call) -> int:
    """FLOPs torch counts; its counter knows no fused attention of CPUs, hence the plain one."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


# Parameters


def test_a_dream_layer_is_its_projection_attention_and_feed_forward(dream):
    width, inner, kv = 3584, 18944, 4 * 128
    project = 2 * width * width + width
    attention = 2 * (width * width + kv * width) + width + 2 * kv
    feed_forward = 3 * width * inner
    norms = 5 * width
    assert [round(n / 1e6, 1) for n in (project, attention, feed_forward)] == [25.7, 29.4, 203.7]
    assert dream.layer_parameters == project + attention + feed_forward + norms
    assert round(dream.layer_parameters / 1e6, 1) == 258.8


def test_a_llada_layer_has_its_own_shape(llada):
    width, inner = 4096, 12288
    matrices = 2 * width * width + 4 * width * width + 3 * width * inner
    assert llada.layer_matrices == matrices
    assert llada.layer_parameters == matrices + width + 5 * width  # a bias and five norms
    assert round(llada.layer_parameters / 1e6) == 252


def test_the_head_and_the_share_of_the_layer(dream):
    assert dream.head == 152064 * 3584
    assert round(dream.head / 1e6) == 545
    assert round(dream.layer_parameters / dream.parameters, 3) == 0.034


# FLOPs


def test_a_forward_costs_two_flops_per_weight_and_column(dream):
    blocks = 28 * (dream.block_matrices * 2 * 128 + 4 * 3584 * 128 * 128)
    assert arithmetic.forward_flops(dream, 128, 128, 0) == blocks
    with_logits = arithmetic.forward_flops(dream, 128, 128, 10)
    assert with_logits - blocks == 2 * 10 * 152064 * 3584


def test_flops_of_a_forward_and_a_pass_are_those_torch_counts(tiny):
    base, sampler, size = tiny
    canvas = base.canvas([[base.bos_id]] * 3, 39)
    columns = canvas.tokens.numel()

    def forward() -> None:
        base.unembed(base.predict(canvas).hidden[canvas.masked])

    def improve() -> None:
        embedding = base.embed(canvas.tokens)
        hidden = sampler(embedding, embedding, canvas.positions, canvas.attends)
        base.unembed(hidden[canvas.masked])

    cells = int(canvas.masked.sum())
    counted = [_flops(forward), _flops(improve)]
    assert counted == pytest.approx(
        [
            arithmetic.forward_flops(size, columns, 40, cells),
            arithmetic.pass_flops(size, columns, 40, cells),
        ],
        rel=0.01,
    )


@pytest.mark.parametrize(("commits", "joint"), [(1, False), (3, False), (3, True), (4, True)])
def test_flops_of_decoding_are_those_torch_counts(tiny, commits, joint):
    base, sampler, size = tiny
    refine = {"refine": Joint(sampler)} if joint else {}
    policy = Policy(commits, **refine).prepare(base)
    canvas = base.canvas([[base.bos_id]] * 2, 20)
    counted = _flops(lambda: list(decode(base, canvas, policy, Noise(0, (0, 1)))))
    expected = 2 * arithmetic.decode_flops(size, 21, 20, commits, joint)
    assert counted == pytest.approx(expected, rel=0.01)


def _windows(base, windows: int = 2, width: int = 4, response: int = 20) -> UnrollBatch:
    """States with most of the response masked, one token more in each."""
    canvas = base.canvas([[base.bos_id]] * windows, response)
    states = canvas.tokens[:, None].repeat(1, width, 1)
    for step in range(width):
        states[:, step:, step] = 7
    places = tuple(range(windows))
    final = states[:, -1]
    return UnrollBatch(states, canvas.attends, final, canvas.response, base.mask_id, 0, places)


@pytest.fixture(scope="module")
def module() -> Distillation:
    return Distillation(base=str(TINY), depth=3)


def test_flops_of_a_training_step_are_those_torch_counts(tiny, module):
    _, _, size = tiny
    batch = _windows(module.base)
    masked = float(batch.masked.sum()) / batch.states.shape[0] / batch.states.shape[1]

    def step() -> None:
        module.losses(batch)[1].sum().backward()

    expected = arithmetic.fit_flops(size, 21, masked, windows=2, window=4, depth=3)
    assert _flops(step) == pytest.approx(expected, rel=0.05)


# Speed-ups


def test_exact_decoding_is_the_unit_and_more_commits_are_faster(dream, llada):
    for size in (dream, llada):
        rows = speed.speed_ups(size, Setting())
        for name in ("marginals", "joint"):
            for kind in ("by_flops", "by_bytes_read"):
                values = [row[name][kind] for row in rows]
                assert values[0] == pytest.approx(1)
                assert values == sorted(values)
        assert all(
            row["joint"][kind] <= row["marginals"][kind] <= row["commits_per_forward"]
            for row in rows
            for kind in ("by_flops", "by_bytes_read")
        )


def test_the_weights_a_decoding_reads_are_counted_by_hand(dream):
    setting = Setting(max_new_tokens=10)
    blocks, head = 28 * dream.block_matrices, dream.head
    forward = 2 * (blocks + head)
    assert speed.bytes_read(dream, setting, 4, joint=False) == 3 * forward
    layer = 2 * (dream.layer_matrices + head)
    assert speed.bytes_read(dream, setting, 4, joint=True) == 3 * forward + 7 * layer
    quantised = replace(setting, bits=8)
    assert speed.bytes_read(dream, quantised, 1, joint=False) == 10 * (blocks + 2 * head)


def test_the_authors_throughput_stands_beside_their_base_alone(dream, llada):
    theirs = speed.published_speed_ups("Dream", dream)
    assert {k: round(v, 2) for k, v in theirs["joint"].items()} == {1: 1, 2: 1.53, 3: 1.86, 4: 2.19}
    assert {k: round(v, 2) for k, v in theirs["marginals"].items()} == {
        1: 1, 2: 1.87, 3: 2.42, 4: 2.96,
    }  # fmt: skip
    assert speed.published_speed_ups("llada", llada) == {}


def test_hours_are_flops_over_the_rate_that_is_reached():
    assert arithmetic.hours(3600e12, 1e12, 1.0) == 1
    assert arithmetic.hours(3600e12, 1e12, 0.5) == 2


# Memory


def test_quantised_blocks_take_their_bits_and_everything_else_stays(dream):
    blocks = 28 * dream.block_matrices
    rest = (dream.parameters - blocks) * 2
    assert memory.base_bytes(dream, 2) == dream.parameters * 2
    assert memory.base_bytes(dream, 2, bits=8) == rest + blocks
    assert memory.base_bytes(dream, 2, bits=4) == rest + blocks / 2 + blocks / 16


def _saved(call, *weights: torch.Tensor) -> int:
    """Bytes of the storages autograd keeps, without those of the weights."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    assert result is not None  # alive until here, or storages would be reused
    for weight in weights:
        kept.pop(weight.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def test_a_pass_keeps_as_much_for_its_backward_as_autograd_saves(tiny):
    base, sampler, size = tiny
    canvas = base.canvas([[base.bos_id]] * 4, 39)
    embedding = base.embed(canvas.tokens)
    hidden = torch.randn_like(embedding)
    inputs = (embedding, hidden, canvas.positions, canvas.attends)
    saved = _saved(lambda: sampler(*inputs), *sampler.parameters())
    assert saved == pytest.approx(memory.saved_bytes(size, canvas.tokens.numel()), rel=0.05)


def test_a_chunk_of_cells_takes_no_more_than_eight_float32_copies_of_its_logits(tiny, module):
    base, _, size = tiny
    student = torch.randn(256, size.width, requires_grad=True)
    cells = Cells(student, torch.randn(256, size.width), torch.arange(256))

    def slope() -> torch.Tensor:
        loss, _ = divergences(cells, module.log_probs, ForwardKL(), 256)
        return torch.autograd.grad(loss.sum(), student)[0]

    logits = 4 * 256 * base.vocab_size
    assert 5 * logits < most_live_bytes(slope) < 8.5 * logits
    assert memory.chunk_bytes(size) == 8 * 4 * GPU_LOGITS


def test_memory_grows_with_everything_that_is_asked_for(dream):
    def total(**changed) -> dict[str, float]:
        terms = memory.memory(dream, replace(Setting(), **changed))
        return {verb: sum(number for number, _ in part.values()) for verb, part in terms.items()}

    least = total()
    for changed, verbs in (
        ({"batch_size": 64}, {"generate", "eval"}),
        ({"max_new_tokens": 255}, {"generate", "fit", "eval"}),
        ({"fit_batch_size": 64}, {"fit"}),
        ({"dtype": "float32"}, {"generate", "fit", "eval"}),
    ):
        more = total(**changed)
        assert {verb for verb in least if more[verb] > least[verb]} == verbs, changed
    assert total(bits=4)["generate"] < least["generate"]
    assert total(devices=8)["fit"] < least["fit"]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"devices": 3}, "multiple"),
        ({"depth": 4}, "window"),
        ({"batch_size": 0}, "batch_size"),
        ({"utilisation": 1.5}, "utilisation"),
        ({"dtype": "int8"}, "int8"),
    ],
)
def test_settings_that_cannot_be_are_refused(dream, changed, word):
    with pytest.raises(ConfigError, match=word):
        memory.memory(dream, Setting(**changed))


INSTRUCT = Setting(
    prompt_length=128,
    max_new_tokens=256,
    batch_size=16,
    fit_batch_size=16,
    steps=40_000,
    examples=20_000,
)


def test_the_page_of_the_bases_has_these_numbers(dream, llada):
    lines = (CHECKPOINTS.parent / "docs" / "bases.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = {heading: values for heading, *values in reversed(cells)}  # the first table's
    columns = [(dream, Setting()), (dream, INSTRUCT), (llada, Setting()), (llada, INSTRUCT)]
    for place, (size, setting) in enumerate(columns):
        flops = arithmetic.work(size, setting)
        for verb, heading in (
            ("generate", "generate: hours"),
            ("fit", "fit: hours for 20,000 steps"),
        ):
            hours = arithmetic.hours(flops[verb], setting.flops_per_second, setting.utilisation)
            assert rows[heading][place] == f"{hours:.1f}"
        verbs = ("generate: memory", "fit: memory, four GPUs", "eval: memory")
        for heading, terms in zip(verbs, memory.memory(size, setting).values(), strict=True):
            together = sum(number for number, _ in terms.values())
            assert rows[heading][place] == f"{together / 1e9:.1f} GB"


BLOCKS = Setting(
    prompt_length=128, max_new_tokens=512, batch_size=16, fit_batch_size=32, examples=20_000
)


def test_the_page_of_the_bases_has_these_numbers_of_block_bases():
    lines = (CHECKPOINTS.parent / "docs" / "bases.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = {heading: values for heading, *values in cells}
    for place, name in enumerate(("sdar-1.7b", "sdar-4b", "sdar-8b")):
        size = _size(name)
        flops, held = arithmetic.work(size, BLOCKS), memory.memory(size, BLOCKS)
        together = {
            verb: f"{sum(number for number, _ in terms.values()) / 1e9:.1f} GB"
            for verb, terms in held.items()
        }
        for verb, heading in (
            ("generate", "generate in blocks: hours, memory"),
            ("fit", "fit on blocks: hours, memory on four GPUs"),
        ):
            hours = arithmetic.hours(flops[verb], BLOCKS.flops_per_second, BLOCKS.utilisation)
            assert rows[heading][place] == f"{hours:.2f}, {together[verb]}"
        assert rows["eval of blocks: memory"][place] == together["eval"]
        faster = {row["commits_per_forward"]: row for row in speed.speed_ups(size, BLOCKS)}
        for kind, digits in (("marginals", 1), ("joint", 2)):
            found = ", ".join(f"{faster[k][kind]['by_bytes_read']:.{digits}f}" for k in (2, 4))
            assert rows[f"{kind}, K = 2, 4, by bytes read"][place] == found


@pytest.mark.parametrize(("commits", "joint"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_block_bases_decoding_costs_what_torch_counts(commits, joint):
    base = Sdar.random()
    size = arithmetic.measure(Sdar, base.config)
    sampler = JointSampler.from_base(base).eval()
    policy = Policy(
        commits,
        refine=Joint(sampler) if joint else Marginals(),
        draw=Draw(forbid=base.end_ids),
        cache=ExactBlocks(),
    ).prepare(base)
    canvas = base.canvas([[5] * 8], 16)
    counted = _flops(lambda: list(decode(base, canvas, policy, Noise(0, (0,)))))
    said = arithmetic.decode_flops(size, 24, 16, commits, joint)
    # A finished block is computed together with the next: its queries are given all keys, and hidden ones.
    assert counted == pytest.approx(said, rel=0.03)
