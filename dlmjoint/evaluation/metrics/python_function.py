"""Checks of the code world's samples: is a text a Python function, and do its names hold together?"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dlmjoint.code import corpus
from dlmjoint.code.checks import read
from dlmjoint.code.functions import nameless
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.metrics.base import Evidence, ExampleMetric
from dlmjoint.evaluation.metrics.values import Flags, Values
from dlmjoint.models.base import Base


@dataclass(frozen=True)
class PythonFunction(ExampleMetric):
    """`parses`: share of the texts that are one Python function; `defined`: that are one and define
    every name they read, builtins apart; `used`: that are one and read all their arguments; with a
    corpus also `verbatim`: that are a function of training, its own name apart. Wilson intervals.

    Functions that people wrote read globals of their module and leave arguments unused too
    (docs/code.md has the numbers): the mark is an exact decoder's sample, not 1.
    """

    prompted: bool = False
    """Read prompt and text together, where the text goes on from the prompt."""
    corpus: str | None = None
    """Folder that `train.code_corpus` has filled; None: `verbatim` is not measured."""

    def fits(self, base: Base) -> None:
        """Raise ConfigError if the corpus is not there."""
        if self.corpus is not None and not (Path(self.corpus) / "train.jsonl").is_file():
            raise ConfigError(
                f"{self.corpus} has no train.jsonl: `python -m train.code_corpus --folder "
                f"{self.corpus}` builds it; without `corpus` verbatim samples are not counted"
            )

    def examples(self, evidence: Evidence) -> dict[str, Values]:
        """See the class."""
        texts = evidence.texts
        if self.prompted:
            texts = [p + t for p, t in zip(evidence.prompts, texts, strict=True)]
        readings = [read(text) for text in texts]
        found: dict[str, Values] = {
            "parses": Flags([one.parses for one in readings]),
            "defined": Flags([one.parses and not one.undefined for one in readings]),
            "used": Flags([one.parses and not one.unused for one in readings]),
        }
        if self.corpus is not None:
            known = _known(Path(self.corpus))
            found["verbatim"] = Flags(
                [
                    one.parses and nameless(t) in known
                    for one, t in zip(readings, texts, strict=True)
                ]
            )
        return found


@cache
def _known(folder: Path) -> frozenset[str]:
    """The functions of training, nameless: read once for all decoders."""
    return frozenset(nameless(text) for text in corpus.read(folder, "train"))
