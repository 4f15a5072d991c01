"""transformers' `generate(..., custom_generate=...)` for networks that do not write left to right."""

from pathlib import Path
from typing import Any

from transformers import GenerationMixin

from dlmjoint.errors import ConfigError


class CustomGeneration:
    """The one route of transformers' `generate` that asks for no next token.

    The rest of `GenerationMixin` is left out: its modes, its cache and its generation config are
    those of models that write from left to right.
    """

    def generate(
        self,
        inputs: Any = None,
        *,
        custom_generate: str | Path | None = None,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """What the `custom_generate/generate.py` of a folder or hub repository returns, such as a
        published joint sampler's; it gets the other arguments, as from transformers.

        Raises ConfigError without such a repository, OSError if it holds no such file, ValueError
        without `trust_remote_code=True`.
        """
        if custom_generate is None:
            raise ConfigError(
                "a masked diffusion model has no next token: give the folder or hub id of a "
                "published joint sampler as custom_generate, or use dlmjoint.generate"
            )
        load = GenerationMixin.load_custom_generate
        function = load(self, str(custom_generate), trust_remote_code=trust_remote_code)  # pyright: ignore[reportArgumentType]
        return function(model=self, inputs=inputs, **kwargs)
