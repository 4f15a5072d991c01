"""How well a code base knows functions of distributions it was not trained on."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dlmjoint.code import corpus as functions
from dlmjoint.code.pretrain import canvases
from dlmjoint.evaluation.likelihood import Answer, log_likelihoods
from dlmjoint.evaluation.metrics.intervals import ratio
from dlmjoint.evaluation.records import Score
from dlmjoint.models.base import Base
from dlmjoint.models.load import load_base

log = logging.getLogger(__name__)


def nelbo(base: Base, texts: list[str], samples: int, seed: int, batch_size: int = 64) -> Score:
    """The bound on the nats per token that a base is trained on: of a function's tokens and of all the
    end-of-texts behind it, over the number of the function's tokens and one end-of-text.

    Functions that do not fit a canvas are left out. The interval is a bootstrap over functions.
    Raises DataError if none fits.
    """
    assert base.tokenizer is not None
    rows = canvases(texts, base.tokenizer).long()
    answers = [Answer((row[0],), tuple(row[1:])) for row in rows.tolist()]
    found = log_likelihoods(base, answers, samples, seed, batch_size)
    lengths = (rows[:, 1:] != base.eos_id).sum(-1) + 1
    return ratio(-np.array(found), lengths.double().numpy())


def report_nelbo(
    base: str,
    corpus: Path = Path("runs/code/corpus"),
    split: Literal["validation", "test"] = "validation",
    n: int = 500,
    samples: int = 16,
    seed: int = 0,
) -> None:
    """Say a base's NELBO on some functions of held-out distributions.

    Args:
        base: folder of a code base.
        corpus: folder that `train.code_corpus` has filled.
        split: which distributions.
        n: functions, drawn from all of the split.
        samples: maskings per function.
        seed: of the functions and their maskings.
    """
    texts = functions.read(corpus, split)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    score = nelbo(load_base(base), [texts[place] for place in order[:n]], samples, seed)
    told = "%s on %s: %.3f nats per token (%.3f to %.3f, %d functions that fit a canvas)"
    log.info(told, base, split, score.value, score.low, score.high, score.n)
