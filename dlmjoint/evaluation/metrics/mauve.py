"""MAUVE (arXiv 2102.01454): how alike two sets of texts are, from 0 to 1.

The divergence curve is mauve-text's (GPL-3), imported here and nowhere else, when it is needed.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import DataError
from dlmjoint.evaluation.judges.features import features
from dlmjoint.evaluation.judges.judge import readable
from dlmjoint.evaluation.metrics.base import Evidence, Metric
from dlmjoint.evaluation.metrics.intervals import resamples
from dlmjoint.evaluation.records import Score
from dlmjoint.models.base import Base


@dataclass(frozen=True)
class Mauve(Metric):
    """`mauve`: generations against as many independent exact samples of the base, averaged over
    k-means seeds. With one seed the value is that of `mauve.compute_mauve` on the same features.

    The interval covers the sampling of the texts: both sets are resampled, each text keeping its
    cluster, and the percentiles are taken about the bootstrap's mean (resampling adds noise of its
    own, which moves the whole bootstrap distribution down). It does not cover MAUVE's bias: two
    samples of one distribution do not reach 1 at finite n, hence the ceiling. Fresh samples of
    the tiny corpus (n = 500, 12 repeats) spread by 0.013 where the mean is 0.96 and by 0.029 where
    it is 0.80; the half-widths there are 0.045 and 0.069, so the interval is on the wide side.
    Values at different n or with different featurizers do not compare.
    """

    needs_reference: ClassVar[bool] = True
    has_ceiling: ClassVar[bool] = True

    featurizer: str = "checkpoints/tiny-judge"
    """Folder or hub id of the model whose hidden states are compared (`gpt2-large` in the paper)."""
    kmeans_seeds: int = 5
    """Clusterings to average over."""
    resamples: int = 200
    """Bootstrap resamples per clustering."""
    min_n: int = 500
    """Fewer texts are refused: below, MAUVE is mostly bias."""
    batch_size: int = 32
    """Texts per forward of the featurizer."""

    def check(self, n: int, decoders: Mapping[str, Policy], exact: Policy) -> None:
        """Raise DataError for too few texts."""
        if n < self.min_n:
            raise DataError(
                f"MAUVE of {n} texts is mostly noise, it needs at least {self.min_n}: "
                "raise the task's n (or --limit), or leave the metric out"
            )

    def fits(self, base: Base) -> None:
        """Raise LoadError if there is no such featurizer."""
        readable(self.featurizer)

    def __call__(self, evidence: Evidence) -> dict[str, Score]:
        """See the class. Raises DataError for empty texts and for fewer than `min_n`."""
        sets = [evidence.texts, [generation.text for generation in evidence.reference]]
        for texts in sets:
            self.check(len(texts), {}, Policy())
            _refuse_empty(texts)
        ours, theirs = (
            features(
                texts,
                model=self.featurizer,
                batch_size=self.batch_size,
                device=evidence.device,
                cache=evidence.cache,
            )
            for texts in sets
        )
        return {"mauve": self.score(ours, theirs)}

    def score(self, ours: Float[np.ndarray, "n D"], theirs: Float[np.ndarray, "m D"]) -> Score:
        """MAUVE of two sets of vectors."""
        curve = _divergence_curve()
        num_clusters = max(2, round(min(len(ours), len(theirs)) / 10))
        weights = [
            resamples(len(part), self.resamples, seed).astype(float)
            for seed, part in enumerate((ours, theirs))
        ]
        values, resampled = [], np.zeros(self.resamples)
        for seed in range(25, 25 + self.kmeans_seeds):  # 25 is mauve-text's own
            labels = _cluster(np.vstack([ours, theirs]), num_clusters, seed)
            member = np.eye(num_clusters)[labels]
            members = member[: len(ours)], member[len(ours) :]
            values.append(_area(curve, *(m.sum(0) for m in members)))
            counts = [w @ m for w, m in zip(weights, members, strict=True)]
            resampled += [_area(curve, *pair) for pair in zip(*counts, strict=True)]
        value = min(float(np.mean(values)), 1.0)
        spread = resampled / self.kmeans_seeds
        low, high = value + np.percentile(spread, [2.5, 97.5]) - spread.mean()
        low, high = max(float(low), 0.0), min(float(high), 1.0)
        return Score(value, min(low, value), max(high, value), min(len(ours), len(theirs)))


def _refuse_empty(texts: list[str]) -> None:
    empty = sum(not text.strip() for text in texts)
    if empty:
        raise DataError(
            f"{empty} of {len(texts)} texts are empty and have no features: forbid "
            "end-of-text in the task's draw (forbid: ['<|endoftext|>']) or give longer responses"
        )


def _divergence_curve() -> Callable[..., np.ndarray]:
    """mauve-text's divergence curve; its imports warn about other packages' internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mauve.compute_mauve import get_divergence_curve_for_multinomials
    return get_divergence_curve_for_multinomials


def _cluster(
    vectors: Float[np.ndarray, "n D"], num_clusters: int, seed: int
) -> Int[np.ndarray, " n"]:
    """Each vector's cluster: unit length, PCA to 90 % of the variance, k-means (MAUVE, section 4).

    mauve-text does the same but returns histograms only, and its k-means warns of few points.
    """
    import faiss
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    pca = PCA(random_state=seed + 1)
    unit = normalize(vectors)
    turned = pca.fit(unit).transform(unit)
    kept = int(np.argmax(np.cumsum(pca.explained_variance_ratio_) >= 0.9)) + 1
    data = np.ascontiguousarray(turned[:, :kept], dtype=np.float32)
    kmeans = faiss.Kmeans(
        kept,
        num_clusters,
        niter=500,
        nredo=5,
        update_index=True,
        seed=seed + 2,
        min_points_per_centroid=1,
    )
    kmeans.train(data)
    return kmeans.index.search(data, 1)[1].reshape(-1)


def _area(
    curve: Callable[..., np.ndarray], ours: Float[np.ndarray, " k"], theirs: Float[np.ndarray, " k"]
) -> float:
    """The area under the divergence curve of two histograms (scaling 5, 25 mixtures)."""
    mixtures = np.linspace(1e-6, 1 - 1e-6, 25)
    x, y = curve(theirs / theirs.sum(), ours / ours.sum(), mixtures, 5).T
    across, up = np.argsort(x), np.argsort(y)
    return float(np.trapezoid(y[across], x[across]) + np.trapezoid(x[up], y[up])) / 2
