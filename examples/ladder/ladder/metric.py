"""A metric: how many letters follow the one before."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Ratios, Values


@dataclass(frozen=True)
class Steps(ExampleMetric):
    """`steps`: the share of letters that are the next of the one before, the prompt's included."""

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """Steps of every text, and letters."""
        texts = [
            prompt + text for prompt, text in zip(evidence.prompts, evidence.texts, strict=True)
        ]
        steps = [sum((ord(b) - ord(a)) % 26 == 1 for a, b in pairwise(text)) for text in texts]
        letters = [len(text) - 1 for text in texts]
        return {"steps": Ratios(np.array(steps, dtype=float), np.array(letters, dtype=float))}
