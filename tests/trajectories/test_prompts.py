"""A list of prompts is the same in every process."""

import json
from pathlib import Path

import pytest

from dlmjoint.errors import ConfigError, DataError
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.trajectories.prompts import FromDataset, shuffled

TEXTS = ["one", "two", "three", "four", "two", "five"]


def _source(folder: Path, texts: list[str], **settings) -> FromDataset:
    path = folder / f"{len(texts)}-{texts[0]}.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in texts))
    return FromDataset("json", column="question", data_files=str(path), **settings)


def _texts(source: FromDataset, base: TransformerBase) -> list[str]:
    return [base.decode(ids) for ids in source.ids(base)]


def test_a_shuffled_list_depends_on_the_texts_and_the_seed_and_not_on_the_order_of_the_rows(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    first = _texts(_source(tmp_path, TEXTS, shuffle=True), golden_dream)
    assert sorted(first) == sorted(TEXTS)
    assert first != TEXTS
    assert _texts(_source(tmp_path, TEXTS[::-1], shuffle=True), golden_dream) == first
    assert _texts(_source(tmp_path, TEXTS, shuffle=True, seed=1), golden_dream) != first


def test_n_takes_the_first_of_the_shuffled_unique_texts(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    whole = _texts(_source(tmp_path, TEXTS, shuffle=True, unique=True), golden_dream)
    some = _texts(_source(tmp_path, TEXTS, shuffle=True, unique=True, n=3), golden_dream)
    assert sorted(whole) == sorted(set(TEXTS))
    assert some == whole[:3]


def test_more_prompts_than_there_are_is_refused(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    with pytest.raises(DataError, match="has 5 prompts and n asks for 6"):
        _source(tmp_path, TEXTS, unique=True, n=6).ids(golden_dream)
    with pytest.raises(ConfigError, match="n is 0"):
        _source(tmp_path, TEXTS, n=0)


def test_a_shuffle_moves_every_text_about_equally_often_to_every_place() -> None:
    texts = [str(number) for number in range(4)]
    counts = [[0] * 4 for _ in texts]
    for seed in range(400):
        for place, text in enumerate(shuffled(texts, seed)):
            counts[int(text)][place] += 1
    # 100 expected, standard deviation 8.7: five of them.
    assert all(abs(count - 100) < 44 for row in counts for count in row)
