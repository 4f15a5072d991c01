from pathlib import Path

import pytest

from tests.evaluation.report.scenes import write_run


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored run whose texts would break a page that took them at their word."""
    return write_run(tmp_path_factory.mktemp("runs") / "scripted")
