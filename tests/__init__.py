"""`check` is how shapes and types are verified in tests: beartype, an int being a fine float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
