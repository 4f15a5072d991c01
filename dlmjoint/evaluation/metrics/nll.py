"""How surprised an autoregressive judge is."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float

from dlmjoint.evaluation.judges.judge import (
    Judge,
    batches,
    language_judge,
    padded,
    readable,
    version,
)
from dlmjoint.evaluation.kept import kept
from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Ratios, Values
from dlmjoint.models.base import Base


@dataclass(frozen=True)
class NLL(ExampleMetric):
    """`nll`: mean negative log-likelihood per token under a judge, nats, over the whole corpus
    (sum over tokens / number of tokens).

    The text, as decoded and not stripped, is tokenised again with the judge's tokenizer. Its first
    token is scored given the beginning-of-text id; a judge without one does not score it. The
    closing end-of-text is not scored, an empty text adds no tokens. Low values alone are no
    merit: repetition has them too. The interval is a bootstrap over texts. What the judge said is
    kept in the run's cache: scoring again needs no judge.
    """

    keeps_examples: ClassVar[bool] = True

    judge: str = "checkpoints/tiny-judge"
    """Folder or hub id of a causal language model."""
    batch_size: int = 32
    """Texts per forward."""
    prompted: bool = False
    """Give the judge the prompt too; the text's tokens alone are scored."""

    def fits(self, base: Base) -> None:
        """Raise LoadError if there is no such judge."""
        readable(self.judge)

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """See the class. Raises DataError for a text the judge cannot read."""
        texts = evidence.texts
        prompts = evidence.prompts if self.prompted else [""] * len(texts)

        def computed() -> Float[np.ndarray, "2 n"]:
            judge = language_judge(self.judge, evidence.device)
            return np.stack(text_nll(judge, prompts, texts, self.batch_size))

        of = (version(self.judge), prompts, texts)
        return {"nll": Ratios(*kept(evidence.cache, "nll", of, computed))}


@torch.inference_mode()
def text_nll(
    judge: Judge, prompts: list[str], texts: list[str], batch_size: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Nats of every text given its prompt, and the number of tokens scored.

    Prompt and text are tokenised together; a token across their border belongs to the text.
    """
    rows = [judge.encode(prompt + text) for prompt, text in zip(prompts, texts, strict=True)]
    known = torch.tensor(
        [_shared(judge.encode(p), row) for p, row in zip(prompts, rows, strict=True)]
    )
    sums, counts = np.zeros(len(rows)), np.zeros(len(rows))
    for batch in batches(rows, batch_size):
        ids, attends = padded([rows[i] for i in batch], judge.model.device)
        logits = judge.model(input_ids=ids, attention_mask=attends.long()).logits[:, :-1]
        log_probs = logits.double().log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        places = torch.arange(1, ids.shape[1])
        inside = places >= known[batch][:, None].clamp(min=1)
        scored = attends[:, 1:] & inside.to(attends.device)
        sums[batch] = -(log_probs * scored).sum(-1).cpu().numpy()
        counts[batch] = scored.sum(-1).cpu().numpy()
    return sums, counts


def _shared(prompt: list[int], row: list[int]) -> int:
    """How many of the row's first tokens are the prompt's."""
    return next(
        (i for i, (a, b) in enumerate(zip(prompt, row, strict=False)) if a != b), len(prompt)
    )
