"""What can go wrong on the user's side; each class is also the standard error it refines."""


class ConfigError(ValueError):
    """A setting that cannot work, found before any long work starts."""


class DataError(ValueError):
    """A file or data set that is empty, half-written or not what its manifest says."""


class MismatchError(ValueError):
    """Two things that do not belong together: a sampler and a base, a data set and a base."""


class LoadError(OSError):
    """A model folder or checkpoint that is missing, incomplete or corrupt."""
