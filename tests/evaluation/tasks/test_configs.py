"""The tasks' own configs: what stands in them can be built, and every benchmark has one."""

import ast
from pathlib import Path

import pytest

from dlmjoint import cli
from dlmjoint.evaluation.tasks.kinds.questions import DatasetQuestions

FOLDER = Path(__file__).parents[3] / "configs" / "eval" / "tasks"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
CONTRACTS = {"DatasetQuestions", "CodeQuestions", "MultipleChoice"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_built_and_checked(path: Path):
    parser = cli.parser_of(cli.COMMANDS["eval"])
    (task,) = parser.instantiate_classes(parser.parse_args(["--config", str(path)])).tasks
    assert path.stem.startswith(task.name)
    assert task.draw.temperature == 0
    if isinstance(task, DatasetQuestions):
        assert task.source.count("/") == 1, "a hub id"
    cli.main(["eval", "--config", str(path), "--dry_run", "true"])


def test_every_data_set_has_a_config():
    kinds = set()
    for path in Path(cli.__file__).parent.glob("evaluation/tasks/**/*.py"):
        classes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)]
        for one in classes:
            if CONTRACTS & {ast.unparse(base) for base in one.bases}:
                kinds.add(one.name)
    text = "".join(path.read_text() for path in CONFIGS)
    assert len(kinds - CONTRACTS) >= 6
    assert not [kind for kind in kinds - CONTRACTS if f".{kind}\n" not in text]
