"""Checks of the tiny world's corpus, whose truth is known."""

from dataclasses import asdict, dataclass

from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Flags, Values
from dlmjoint.tiny.corpus import agreement


@dataclass(frozen=True)
class CorpusAgreement(ExampleMetric):
    """`agreement_item`, `agreement_name`, `agreement_arithmetic`, `agreement_faithful` and
    `agreement_grammar`: shares of texts that pass each check, with Wilson intervals."""

    prompted: bool = False
    """Check prompt and text together, where the text is a solution."""

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """See the class and `dlmjoint.tiny.corpus.Agreement`."""
        texts = evidence.texts
        if self.prompted:
            texts = [p + t for p, t in zip(evidence.prompts, evidence.texts, strict=True)]
        checks = [asdict(agreement(text)) for text in texts]
        return {f"agreement_{name}": Flags([check[name] for check in checks]) for name in checks[0]}
