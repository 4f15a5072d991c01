"""Texts as vectors: what MAUVE compares."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from dlmjoint.evaluation.judge import batches, feature_judge, padded


@torch.inference_mode()
def features(
    texts: list[str], *, model: str, batch_size: int, device: str, cache: Path
) -> Float[np.ndarray, "n D"]:
    """The last hidden state of each text's last token, from `cache` if it was computed before.

    Measured on the tiny corpus with all item names exchanged at random (n = 500): MAUVE 0.12 from the
    last token, 0.92 from the mean over tokens. The last token's state has seen the whole text.
    """
    key = hashlib.sha256(repr((model, texts)).encode()).hexdigest()[:16]
    path = cache / f"features-{key}.npy"
    if path.exists():
        return np.load(path)
    judge = feature_judge(model, device)
    rows = [judge.encode(text) for text in texts]
    vectors = np.zeros((len(rows), judge.model.config.hidden_size), dtype=np.float32)
    for batch in batches(rows, batch_size):
        ids, attends = padded([rows[i] for i in batch], judge.model.device)
        hidden = judge.model(input_ids=ids, attention_mask=attends.long()).last_hidden_state
        last = attends.sum(-1) - 1
        vectors[batch] = hidden[torch.arange(len(batch)), last].float().cpu().numpy()
    save_array(path, vectors)
    return vectors


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)
