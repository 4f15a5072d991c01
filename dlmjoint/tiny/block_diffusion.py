"""Train the tiny world's block diffusion base: the tiny Dream's weights, taught to write in blocks."""

from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from dlmjoint.models.load import load_base
from dlmjoint.models.sdar import Sdar, SdarConfig, SdarNetwork
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.pretrain.objective import CELLS, IGNORED
from dlmjoint.pretrain.train import (
    TOKENIZER_FILES,
    History,
    Precision,
    Schedule,
    started_base,
    train,
)
from dlmjoint.tiny.pretrain import Problems


@dataclass(frozen=True)
class BlockDiffusion:
    """Masks a share t ~ U(0, 1) of every block and predicts it given the blocks before it, unmasked
    (block diffusion, arXiv 2503.09573, as SDAR is trained; with a constant weight instead of 1/t,
    which has less variance and the same optimum).

    All blocks of a row are trained in one forward of twice its columns: the clean row, and behind it
    the masked one, whose blocks see themselves and the clean blocks before them.
    """

    base: Sdar

    @property
    def network(self) -> nn.Module:
        """See `Objective.network`."""
        return self.base.network

    def loss(self, tokens: Int[Tensor, "B L"], prompts: Int[Tensor, " B"]) -> Tensor:
        """See `Objective.loss`; a question is masked like everything else."""
        hidden_cells = self.hide(tokens)
        noisy = tokens.masked_fill(hidden_cells, self.base.mask_id)
        hidden = self._hidden(torch.cat([tokens, noisy], dim=1))[:, tokens.shape[1] :]
        predicted, targets = hidden[hidden_cells], tokens[hidden_cells]
        missing = -len(targets) % CELLS  # see MaskedDiffusion.loss
        logits = self.base.unembed(pad(predicted, (0, 0, 0, missing)))
        return cross_entropy(logits.float(), pad(targets, (0, missing), value=IGNORED))

    def hide(self, tokens: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """The cells to predict; never the first column. Shares are stratified over a batch's blocks:
        every batch sees all noise levels."""
        rows, length = tokens.shape
        block = self._blocks(length)
        number = rows * (int(block[-1]) + 1)
        shares = ((torch.arange(number) + torch.rand(number)) / number)[torch.randperm(number)]
        cells = torch.rand(rows, length) < shares.view(rows, -1)[:, block]
        return cells & (torch.arange(length) > 0)

    def _blocks(self, length: int) -> Int[Tensor, " L"]:
        return self.base.attention.blocks(torch.arange(length)[None])[0]

    def _hidden(self, both: Int[Tensor, "B 2L"]) -> Float[Tensor, "B 2L D"]:
        """Last hidden states of clean rows with their masked ones behind them."""
        rows, length = both.shape[0], both.shape[1] // 2
        own, other = self._blocks(length)[:, None], self._blocks(length)[None]
        clean = torch.cat([other <= own, torch.zeros(length, length, dtype=torch.bool)], dim=1)
        masked = torch.cat([other < own, other == own], dim=1)
        seen = torch.cat([clean, masked]).expand(rows, -1, -1)
        positions = torch.arange(length).repeat(2).expand(rows, -1)
        return self.base.run(both, positions, seen)


NAMES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "rope_parameters", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "rms_norm_eps"),
)
"""Settings that an adapted base shares with the Dream it begins with."""


@torch.no_grad()
def adapted(start: TransformerBase, tokens: Int[Tensor, "B L"], block_length: int) -> Sdar:
    """An SDAR with a Dream's weights, to be trained.

    SDAR has no biases, and norms on queries and keys, which begin at the mean size those have on
    some canvases; its outputs are not shifted. Training mends all three.
    """
    theirs = start.config
    config = SdarConfig(
        **{name: getattr(theirs, name) for name in NAMES},
        head_dim=theirs.hidden_size // theirs.num_attention_heads,
        block_size=block_length,
    )
    base = Sdar(SdarNetwork(config), start.tokenizer, name=start.name)
    state = base.network.state_dict()
    state |= {name: w for name, w in start.network.state_dict().items() if name in state}
    state |= _norms(start.network, tokens, config.head_dim)
    base.network.load_state_dict(state)
    return base


def _norms(network: nn.Module, tokens: Int[Tensor, "B L"], head_dim: int) -> dict[str, Tensor]:
    """The root mean square of every block's queries and keys, as weights of norms."""
    found: dict[str, Tensor] = {}
    hooks = []
    for name, module in network.named_modules():
        for part in ("q", "k"):
            if name.endswith(f"{part}_proj"):
                norm = name.removesuffix("proj") + "norm.weight"

                def note(module: nn.Module, inputs: object, out: Tensor, norm: str = norm) -> None:
                    found[norm] = out.square().mean().sqrt().repeat(head_dim)

                hooks.append(module.register_forward_hook(note))
    network.model(input_ids=tokens)  # pyright: ignore[reportCallIssue]
    for hook in hooks:
        hook.remove()
    return found


def pretrain_block_base(
    folder: Path,
    start: Path = Path("checkpoints/tiny-dream"),
    block_length: int = 8,
    steps: int = 1_500,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    cooldown: int | None = None,
    first: int = 2_000_000,
    seed: int = 0,
    precision: Precision = "32-true",
) -> None:
    """Train the tiny SDAR into `folder`.

    Args:
        folder: where config, weights and tokenizer are written.
        start: folder of the tiny Dream to begin with, or of a tiny SDAR to go on from.
        block_length: columns per block, where it begins with a Dream.
        steps: updates.
        batch_size: problems per update; every problem is new.
        learning_rate: AdamW's peak for embeddings, head, norms and biases; Muon's is six times it.
        cooldown: updates at the end over which the rate falls to zero; None: all of them.
        first: number of the first problem, so that the start has not seen it.
        seed: of the noise.
        precision: of the products: bf16-mixed is for CPUs that multiply in bfloat16.
    """
    arguments = dict(locals())
    L.seed_everything(seed)
    base, history = load_base(start), History()
    if isinstance(base, Sdar):
        base, history = started_base(folder, start), History.of(start)
        first = history.examples or first
    else:
        assert base.tokenizer is not None
        stream = iter(Problems(base.tokenizer, seed=0, first=first))
        some = torch.stack([next(stream)[0] for _ in range(64)])
        base = adapted(base, some, block_length)
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            (folder / name).write_bytes((start / name).read_bytes())
    assert isinstance(base, Sdar)
    assert base.tokenizer is not None
    train(
        BlockDiffusion(base),
        Problems(base.tokenizer, seed=0, first=first),
        folder,
        Schedule(steps, batch_size, learning_rate, steps if cooldown is None else cooldown),
        arguments=arguments,
        history=history,
        first=first,
        precision=precision,
    )
