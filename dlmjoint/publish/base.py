"""The base of what is published, by a name under which others find it."""

import logging

from dlmjoint.errors import ConfigError, MismatchError
from dlmjoint.models.files import ModelFiles
from dlmjoint.models.load import fingerprint_names, read_config
from dlmjoint.models.transformer import FINGERPRINT_ROWS, fingerprint

log = logging.getLogger(__name__)


def find_base(place: str, revision: str | None, public: bool) -> ModelFiles:
    """The files of a base: its config, and its weights if they are here.

    Raises LoadError if there is no such base, ConfigError if it is to be `public` and is a folder.
    """
    found = ModelFiles.find(place, revision, weights=False)
    if found.revision is None:
        told = (
            f"the base {place} is a folder of this machine, where nobody else finds it: publish the "
            "base, and give its hub id as --base (and its commit as --base_revision)"
        )
        if public:
            raise ConfigError(told)
        log.warning("to publish this for good: %s", told)
    return found


def check_weights(found: ModelFiles, wanted: str) -> None:
    """Raise MismatchError if the weights are here and are not those of the fingerprint."""
    if not found.has_weights:
        log.warning("the weights of %s are not here: they could not be compared", found.name)
        return
    ours = fingerprint(found.read(fingerprint_names(*read_config(found)), FINGERPRINT_ROWS))
    if ours != wanted:
        raise MismatchError(
            f"{found.name} has other weights ({ours}) than the base these trajectories were drawn from "
            f"({wanted}): name that one"
        )
