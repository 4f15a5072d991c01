"""The contract every frozen base keeps, whatever its architecture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import takewhile

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dlmjoint.errors import ConfigError
from dlmjoint.models.parts.attention import Attention
from dlmjoint.models.parts.canvas_cache import CanvasMemory
from dlmjoint.types import Canvas, Prediction

Texts = Mapping[int, str | Sequence[int]]
"""What stands in a response beforehand: texts or ids, by the column they begin at."""
IMPOSSIBLE = -1e30
"""The logit of a token that cannot be: its probability is 0 in any dtype, and 0 times it is 0."""


class Base(ABC):
    """A frozen masked diffusion language model.

    A plain object, not an `nn.Module`: there is nothing to train, register or save, and a trainer
    that holds one does not put 15 GB into its checkpoints.

    The contract, tested for every subclass: predictions are aligned (entry i is about column i,
    whatever the model's own shift), do not depend on left padding or on the other rows, and some
    columns over exact memory predict what the whole canvas does.
    """

    name: str
    """Folder or hub id it was loaded from."""
    revision: str | None
    """The hub's commit, where there is one."""
    mask_id: int
    eos_id: int
    bos_id: int | None
    pad_id: int
    vocab_size: int
    hidden_size: int
    max_length: int
    """Columns a canvas may have."""
    device: torch.device
    dtype: torch.dtype
    """Of hidden states."""
    tokenizer: PreTrainedTokenizerBase | None
    attention: Attention = Attention()
    """Which columns see which."""
    stop_ids: tuple[int, ...] = ()
    """Further ids that end an answer, as its generation config names them."""
    bits: int | None = None
    """Per weight, where the base was quantised."""
    captured: bool = False
    """Whether forwards are compiled for their shapes, so that these should come again."""

    @abstractmethod
    def predict(
        self,
        canvas: Canvas,
        renew: Bool[Tensor, "B L"] | None = None,
        memory: CanvasMemory | None = None,
    ) -> Prediction:
        """The aligned hidden states of the canvas.

        Without a memory everything is computed. With one, the cells of `renew` are (all, if it is
        None); every other cell's keys, values and hidden states are taken from the memory, which is
        brought up to date in place. A column is computed for all rows if any row renews it, but
        only the cells asked for change: rows stay independent.
        """

    def fed(self, renew: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """The cells computed so that the predictions about these are renewed."""
        return renew

    @abstractmethod
    def embed(self, tokens: Int[Tensor, "*cells"]) -> Float[Tensor, "*cells D"]:
        """The base's token embeddings."""

    @abstractmethod
    def unembed(self, hidden: Float[Tensor, "*cells D"]) -> Float[Tensor, "*cells V"]:
        """Raw logits of aligned hidden states: a linear map, so that mixing hidden states mixes logits
        (classifier-free guidance does). Forbidden ids still have theirs; `Draw` removes them."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of the weights, the same in every dtype they are exactly representable in."""

    @classmethod
    @abstractmethod
    def random(cls, seed: int = 0) -> "Base":
        """A small random model of the kind: what the contract's tests and first trials run on."""

    @cached_property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Ids that are never a token of text: the mask, and ids the tokenizer does not know
        (a Dream of 152,064 logits has a tokenizer of 151,667)."""
        known = self.vocab_size if self.tokenizer is None else len(self.tokenizer)
        return tuple(sorted({self.mask_id, *range(known, self.vocab_size)}))

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: end-of-text, `stop_ids` and, where there is a chat template, the
        token it puts behind an assistant's message (`<|im_end|>`, `<|eot_id|>`)."""
        ends = {self.eos_id, *self.stop_ids}
        if self.tokenizer is not None and self.tokenizer.chat_template:
            said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
            text = str(self.tokenizer.apply_chat_template(said, tokenize=False))
            after = self.encode(text[text.rindex("!") + 1 :])
            ends |= {token for token in after[:1] if token in self._added_ids()}
        return tuple(sorted(ends))

    def _added_ids(self) -> set[int]:
        added: dict[str, int] = self._tokenizer().get_added_vocab()  # pyright: ignore[reportCallIssue,reportOptionalCall]
        return set(added.values())

    @torch.inference_mode()
    def score(
        self,
        input_ids: Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "B L"] | Bool[Tensor, "B L"] | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L V"]]:
        """Aligned hidden states and raw logits of every column: row i is about token i.

        `attention_mask` is 0 on left padding. Entries of padding columns mean nothing.
        """
        tokens = input_ids.to(self.device)
        attends = (
            torch.ones_like(tokens, dtype=torch.bool)
            if attention_mask is None
            else attention_mask.to(self.device).bool()
        )
        padded = False if attention_mask is None else None
        canvas = Canvas(tokens, attends, slice(0, tokens.shape[1]), self.mask_id, padded=padded)
        hidden = self.predict(canvas).hidden
        return hidden, self.unembed(hidden)

    def canvas(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        anchors: Texts | Sequence[Texts] | None = None,
    ) -> Canvas:
        """A canvas on the base's device, blank but for its anchors.

        `anchors` are texts or ids to stand in every response from a column on (negative: counted
        from the response's end), or each response's own. Raises ConfigError if prompt and response together exceed the
        model's limit, or if the anchors do not fit.
        """
        longest = max(map(len, prompts))
        if longest + max_new_tokens > self.max_length:
            raise ConfigError(
                f"the longest prompt has {longest} tokens; with max_new_tokens={max_new_tokens} "
                f"that is more than the {self.max_length} columns {self.name} was made for. "
                "Shorten the prompt or ask for fewer tokens"
            )
        blank = Canvas.blank(
            [list(prompt) for prompt in prompts],
            max_new_tokens,
            mask_id=self.mask_id,
            pad_id=self.pad_id,
        )
        canvas = blank.to(self.device)
        rows = [anchors] if isinstance(anchors, Mapping) else anchors or []
        if not any(rows):
            return canvas
        ids = [
            {c: self.encode(a) if isinstance(a, str) else a for c, a in row.items()} for row in rows
        ]
        try:
            return canvas.anchor(ids[0] if isinstance(anchors, Mapping) else ids)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def encode(self, text: str) -> list[int]:
        """The ids of a text, special tokens recognised, nothing added."""
        return self._tokenizer().encode(text, add_special_tokens=False)

    def encode_chat(self, message: str) -> list[int]:
        """The ids of a user's message in the chat template, ready for the answer."""
        return self.encode(self.chat([{"role": "user", "content": message}]))

    def chat(self, turns: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation in the tokenizer's chat template: ready for the answer, or its last turn left
        open. Raises ConfigError if there is no such template."""
        tokenizer = self._tokenizer()
        if not tokenizer.chat_template:
            raise ConfigError(f"{self.name} has no chat template: give the prompt without a chat")
        text = tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(text)

    def decode(self, ids: Sequence[int], anchored: int = 0) -> str:
        """The text of a response: up to the first of `end_ids`, special tokens left out.

        The first `anchored` ids, up to the last anchor, are in the text whatever they are: a reasoning
        that ends before an anchored answer does not take the answer away.
        """
        first = [token for token in ids[:anchored] if token not in self.end_ids]
        rest = takewhile(lambda token: token not in self.end_ids, ids[anchored:])
        return str(self._tokenizer().decode([*first, *rest], skip_special_tokens=True))

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ConfigError(f"{self.name} has no tokenizer: give and take ids instead of texts")
        return self.tokenizer
