"""Recipes, found: an evaluation's settings beside the numbers that somebody has published."""

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

import dlmjoint
from dlmjoint.errors import ConfigError

PLACES = ("configs/eval/papers", "configs/eval")
"""Where recipes are looked for by name, below the current folder and below the source's own."""
IN_SAMPLER = "evaluation.yaml"
"""The recipe of a published sampler's own table."""
THIS_FOLDER = "."
"""The sampler in such a recipe: the one in the folder the recipe lies in."""


def config_of(name: str) -> str:
    """A recipe as a command takes it for its config: its file, or the settings themselves where they
    are a published sampler's, which is then the one in that folder or repository.

    Raises ConfigError as `find` does.
    """
    path = find(name)
    if path.name != IN_SAMPLER:
        return str(path)
    place = name if path != Path(name) else str(path.parent)
    return json.dumps(_placed(yaml.safe_load(path.read_text(encoding="utf-8")), place))


def find(name: str) -> Path:
    """The file of a recipe: a name among `configs/eval/papers`, a file, or the folder or hub id of a
    published sampler, whose own table is then the recipe.

    Raises ConfigError if there is none, or if it expects nothing.
    """
    path = _file(name)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or "expected" not in values:
        raise ConfigError(
            f"{path} is no recipe: it has no `expected` section. To run it as it is, use --config"
        )
    return path


def names() -> list[str]:
    """The recipes that can be named."""
    found = {path.stem for folder in _folders() for path in folder.glob("*.yaml")}
    return sorted(name for name in found if "\nexpected:" in _named(name).read_text("utf-8"))


def _placed(value: Any, place: str) -> Any:
    """The settings with the sampler of the recipe's own folder named by its place."""
    if isinstance(value, list):
        return [_placed(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    own = value.get("sampler") == THIS_FOLDER
    placed = {key: _placed(item, place) for key, item in value.items()}
    return placed | {"sampler": place} if own else placed


def _file(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        path = path / IN_SAMPLER
    if path.is_file():
        return path
    if any((folder / f"{name}.yaml").is_file() for folder in _folders()):
        return _named(name)
    if "/" in name:
        try:
            return Path(hf_hub_download(name, IN_SAMPLER))
        except (OSError, ValueError, HFValidationError) as error:
            raise ConfigError(
                f"{name} is no file, no folder with an {IN_SAMPLER} and no published sampler "
                f"({error}); recipes by name: {', '.join(names())}"
            ) from error
    raise ConfigError(
        f"there is no recipe {name!r}; known here: {', '.join(names()) or 'none'}. They lie in the "
        f"repository's {PLACES[0]}: run there, or give a path"
    )


def _named(name: str) -> Path:
    return next(p for p in (folder / f"{name}.yaml" for folder in _folders()) if p.is_file())


def _folders() -> list[Path]:
    source = Path(dlmjoint.__file__).parent.parent
    return [root / place for root in (Path.cwd(), source) for place in PLACES]
