"""Texts as vectors: what MAUVE compares."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from dlmjoint.evaluation.judges.judge import batches, feature_judge, padded, version
from dlmjoint.evaluation.kept import kept


def features(
    texts: list[str], *, model: str, batch_size: int, device: str, cache: Path
) -> Float[np.ndarray, "n D"]:
    """The last hidden state of each text's last token, from `cache` if it was computed before.

    Measured on the tiny corpus with all item names exchanged at random (n = 500): MAUVE 0.12 from the
    last token, 0.92 from the mean over tokens. The last token's state has seen the whole text.
    """

    def computed() -> Float[np.ndarray, "n D"]:
        return _features(texts, model, batch_size, device)

    return kept(cache, "features", (version(model), texts), computed)


@torch.inference_mode()
def _features(
    texts: list[str], model: str, batch_size: int, device: str
) -> Float[np.ndarray, "n D"]:
    judge = feature_judge(model, device)
    rows = [judge.encode(text) for text in texts]
    vectors = np.zeros((len(rows), judge.model.config.hidden_size), dtype=np.float32)
    for batch in batches(rows, batch_size):
        ids, attends = padded([rows[i] for i in batch], judge.model.device)
        hidden = judge.model(input_ids=ids, attention_mask=attends.long()).last_hidden_state
        last = attends.sum(-1) - 1
        vectors[batch] = hidden[torch.arange(len(batch)), last].float().cpu().numpy()
    return vectors
