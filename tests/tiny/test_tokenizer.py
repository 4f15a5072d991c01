"""The tiny tokenizer fits the corpus, loses no text, and loads as Dream's does."""

import json
import re
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from dlmjoint.models.dream import Dream
from dlmjoint.pretrain.tokenizer import BOS, EOS, MASK, SPECIAL, save_tokenizer
from dlmjoint.tiny.corpus import ITEMS, NAMES, problem
from dlmjoint.tiny.pretrain import CANVAS

TEXTS = 20_000
"""As many as the shipped tokenizer was trained on."""
FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The texts that the shipped tokenizer was trained on."""
    return [problem(0, index).text for index in range(TEXTS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A freshly trained tokenizer's folder."""
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path, texts)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The fresh tokenizer, loaded as any Dream folder's."""
    loaded = Dream.load_tokenizer(folder)
    assert loaded is not None
    return loaded


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text and nothing else."""
    return tokenizer.encode(text, add_special_tokens=False)


def test_training_twice_writes_the_same_files(
    folder: Path, tmp_path: Path, texts: list[str]
) -> None:
    save_tokenizer(tmp_path, texts)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_special_tokens_have_the_last_ids_within_511(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    size = len(vocabulary) + len(SPECIAL)
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL))
    assert ids == list(range(len(vocabulary), size))
    assert len(tokenizer) == size <= 511


def test_end_of_text_is_also_the_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.bos_token == BOS
    assert tokenizer.mask_token == MASK
    assert tokenizer.eos_token == tokenizer.pad_token == EOS


def test_the_config_follows_the_published_layout_without_code(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "DreamTokenizer"
    assert config["model_max_length"] == 2048
    assert "auto_map" not in config


def test_every_corpus_text_fits_the_canvas_and_round_trips(
    texts: list[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    for text, ids in zip(texts, tokenizer(texts, add_special_tokens=False).input_ids, strict=True):
        # A beginning-of-text goes before it.
        assert 30 <= len(ids) <= CANVAS - 1, text
    for text in texts[:500]:
        assert tokenizer.decode(encode(tokenizer, text)) == text


def test_question_and_solution_are_tokenized_apart_as_together(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    for one in (problem(1, index) for index in range(500)):
        apart = encode(tokenizer, one.question) + encode(tokenizer, one.solution)
        assert apart == encode(tokenizer, one.text)


def test_every_word_of_the_corpus_is_a_single_token(
    texts: list[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    words = {word for text in texts for word in re.findall(r" ?[A-Za-z]+|[.?]\n|####", text)}
    assert {word for word in words if len(encode(tokenizer, word)) != 1} == set()


@pytest.mark.parametrize("word", [*NAMES, *(f" {word}" for word in NAMES + ITEMS)])
def test_names_and_items_are_single_tokens(tokenizer: PreTrainedTokenizerBase, word: str) -> None:
    assert len(encode(tokenizer, word)) == 1


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.tokenize("12+6=18") == ["1", "2", "+", "6", "=", "1", "8"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\n \t\r\n",
        "  two  spaces ",
        "I'll don't",
        "naïve façade",
        "漢字かな",
        "مرحبا",
        "🎈👩‍👩‍👧",
        "\0\x7f\u200b\ufffd\U0010ffff",
        "x=3.14; y#!<|not special|>",
    ],
)
def test_any_normalised_text_round_trips(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(encode(tokenizer, text)) == text


def test_special_tokens_in_a_text_are_recognised(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = encode(tokenizer, f"{BOS}Tom{MASK}{EOS}")
    assert tokenizer.convert_ids_to_tokens(ids) == [BOS, "Tom", MASK, EOS]


def test_the_chat_template_marks_each_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [{"role": "user", "content": "How many?"}]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
