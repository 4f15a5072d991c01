"""A byte-level BPE of the Qwen2 class for the worlds of our own, laid out as Dream-7B's."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

EOS, BOS, MASK = "<|endoftext|>", "<|beginoftext|>", "<|mask|>"
SPECIAL = (EOS, BOS, "<|im_start|>", "<|im_end|>", MASK)
"""In the order of their ids, after all merges. End-of-text is also the padding, as in Dream."""
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def save_tokenizer(folder: Path, texts: Iterable[str], size: int = 511) -> None:
    """Train on texts and write vocab.json, merges.txt and tokenizer_config.json.

    Any text encodes (the 256 bytes are in the vocabulary), digits are split one by one, common
    words of the corpus are single tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size - len(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    model = json.loads(tokenizer.to_str())["model"]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", model["vocab"])
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    _write(folder / "tokenizer_config.json", _settings(len(model["vocab"])))


def _settings(first_special: int) -> dict[str, object]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {
        "tokenizer_class": "DreamTokenizer",
        "added_tokens_decoder": {
            str(first_special + place): {"content": token, **flags, "special": True}
            for place, token in enumerate(SPECIAL)
        },
        "additional_special_tokens": [BOS, MASK],
        "bos_token": BOS,
        "eos_token": EOS,
        "mask_token": MASK,
        "pad_token": EOS,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 2048,
        "split_special_tokens": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
