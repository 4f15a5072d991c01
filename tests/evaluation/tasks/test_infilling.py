"""Functions with a hole: everything around it is given, and stays."""

import json
from pathlib import Path

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError, DataError
from dlmjoint.evaluation.running.run import run
from dlmjoint.evaluation.scoring.score import score
from dlmjoint.evaluation.tasks.infilling import Infilling

FUNCTIONS = [f"def f{n}(x):\n    return x" for n in range(5)]
COLUMNS = 40


@pytest.fixture
def task(tmp_path: Path) -> Infilling:
    lines = [json.dumps(text) + "\n" for text in [*FUNCTIONS, "def much_longer(x):\n    return x"]]
    (tmp_path / "test.jsonl").write_text("".join(lines))
    return Infilling(n=5, corpus=str(tmp_path), characters=(20, 28), hole=3, max_new_tokens=COLUMNS)


def test_functions_are_the_first_that_fit(task: Infilling) -> None:
    assert [example.reference for example in task.examples()] == FUNCTIONS


def test_a_hole_is_all_that_is_left_to_write(base, task: Infilling) -> None:
    examples = task.examples()
    prompts, anchors = task.prompt_ids(base, examples), task.anchors_of(base, examples)
    canvas = base.canvas(prompts, COLUMNS, anchors)
    assert canvas.masked.sum(-1).tolist() == [3] * 5
    for row, text in enumerate(FUNCTIONS):
        ids = base.encode(text)
        ids += [base.eos_id] * (COLUMNS - len(ids))
        left = ~canvas.masked[row, canvas.response]
        found = canvas.tokens[row, canvas.response][left].tolist()
        assert found == [token for token, kept in zip(ids, left.tolist(), strict=True) if kept]
    places = {int(row.nonzero()[0]) for row in canvas.masked}
    assert len(places) > 1, "holes lie in different places"


def test_the_whole_function_is_read_and_right_where_it_is_as_it_was(
    base, task: Infilling, tmp_path: Path
) -> None:
    run(base, {"marginals-k3": Policy(3)}, [task], tmp_path / "run", batch_size=2)
    lines = (tmp_path / "run/generations/marginals-k3/infilling.jsonl").read_text().splitlines()
    for line, example, around in zip(
        map(json.loads, lines),
        task.examples(),
        task.anchors_of(base, task.examples()),
        strict=True,
    ):
        assert (line["base_forwards"], len(line["order"])) == (1, 3)
        for column, ids in around.items():
            assert line["tokens"][column : column + len(ids)] == ids
        assert task.grade(example, line["text"]).correct == (line["text"] == example.reference)
    scores = score(tmp_path / "run")["decoders"]["marginals-k3"]["tasks"]["infilling"]
    assert set(scores) == {"accuracy", "answered", "parses", "defined", "used"}
    first = task.examples()[0]
    assert task.grade(first, FUNCTIONS[0]).correct
    assert not task.grade(first, FUNCTIONS[1]).correct


def test_what_cannot_be_asked_is_refused(base, task: Infilling, tmp_path: Path) -> None:
    few = Infilling(n=6, corpus=str(tmp_path), characters=(20, 28))
    with pytest.raises(DataError, match="has 5 functions of 20 to 28 characters"):
        few.examples()
    wide = Infilling(n=5, corpus=str(tmp_path), characters=(20, 28), hole=30)
    with pytest.raises(ConfigError, match="has no hole of 30"):
        wide.anchors_of(base, wide.examples())
    with pytest.raises(ConfigError, match="at least 1"):
        Infilling(hole=0)
