"""Every task of lm-eval, by its own command: `dlmjoint lm-eval run --model dlmjoint ...`.

Importing this file makes the model known to lm-eval, which looks for no models of other packages;
the command imports it first and is lm-eval's own otherwise.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.likelihood import Answer, columns_behind, log_likelihoods
from dlmjoint.evaluation.lm_eval.settings import Settings, read
from dlmjoint.evaluation.running.settings import base_settings, describe
from dlmjoint.evaluation.running.sharding import PATIENCE, slurm_tasks
from dlmjoint.models.base import Base
from dlmjoint.models.load import load_any_base
from dlmjoint.random import Noise
from dlmjoint.trajectories.record import record
from dlmjoint.trajectories.tally import Tally

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    from dlmjoint.evaluation.lm_eval.requests import Request, Wanted, cut_at, example_id
except ModuleNotFoundError as missing:
    raise ConfigError("lm-eval is not installed: pip install 'dlmjoint[eval]'") from missing

log = logging.getLogger(__name__)

NAME = "dlmjoint"
"""What lm-eval knows the model as."""
DEFAULT_DEVICE = "cuda:0"
"""What lm-eval asks for where its user named no device."""


def command(arguments: Sequence[str]) -> None:
    """lm-eval's own command line, with the model `dlmjoint` known to it. Raises ConfigError if
    `--model_args` are not ours: before lm-eval reads its 14,000 files of tasks."""
    from lm_eval.__main__ import HarnessCLI, setup_logging

    sys.argv = ["dlmjoint lm-eval", *arguments]
    setup_logging()
    harness = HarnessCLI()
    asked = harness.parse_args()
    given = vars(asked)
    if given.get("model") == NAME and not given.get("config"):  # a file may hold some of them
        read(given.get("model_args") or {})
    harness.execute(asked)


@register_model(NAME)
class DLMJoint(TemplateLM):
    """A base and a policy as lm-eval knows models. `Settings` says what `--model_args` may hold."""

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        settings = read(model_args)
        self._rank, self._world_size = _join()
        device = _device(settings.device)
        base = load_any_base(
            settings.base, device, settings.dtype, settings.revision, settings.loading
        )
        self._use(base, settings)

    @classmethod
    def of(cls, base: Base, settings: Settings) -> "DLMJoint":
        """Around a base that is loaded already, in one process."""
        model = cls.__new__(cls)
        TemplateLM.__init__(model)
        model._use(base, settings)
        return model

    def _use(self, base: Base, settings: Settings) -> None:
        if base.tokenizer is None:
            raise ConfigError(f"{base.name} has no tokenizer: lm-eval gives and takes texts")
        self.base, self.settings = base, settings
        self.tokenizer = base.tokenizer
        self.policy = settings.decoder().prepare(base)
        self.tally = Tally(eos_id=base.eos_id)
        self._device = base.device

    # What lm-eval asks about a model

    @property
    def eot_token_id(self) -> int:
        """The id of end-of-text."""
        return self.base.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is replaced by: beginning-of-text where there is one."""
        return self.base.eos_id if self.base.bos_id is None else self.base.bos_id

    @property
    def max_length(self) -> int:
        """Columns a prompt and its answer may have together."""
        return self.base.max_length

    @property
    def tokenizer_name(self) -> str:
        """Tells stored requests of one tokenizer and template from those of another."""
        return "__".join(filter(None, (self.base.name, self.base.revision))).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text, special tokens recognised; `opening` before it, unless refused."""
        opening = "" if add_special_tokens is False else self.settings.opening
        return self.base.encode(opening + string)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation in the tokenizer's chat template. Raises ConfigError if it has none."""
        if self.settings.opening:
            raise ConfigError("opening is not used in a chat: the template writes its own")
        return self.base.chat(chat_history, add_generation_prompt)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval keeps beside the results: whose they are, and what this process spent."""
        tally = self.tally
        spent = {
            "base_forwards": tally.base_forwards,
            "canvases": tally.canvases,
            "sampler_passes": tally.sampler_passes,
            "tokens": tally.tokens,
            "text_tokens": tally.text_tokens,
            "seconds": tally.seconds,
        }
        return {
            "base": base_settings(self.base),
            "policy": describe(self.settings.decoder()),
            "seed": self.settings.seed,
            "samples": self.settings.samples,
            "processes": self.world_size,
            "spent_by_this_process": spent,
        }

    # Texts

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A text per request, up to the first of its stops.

        All columns are decoded before a stop is looked for: diffusion does not write from left to
        right. Raises ConfigError, before anything is decoded, for a prompt that is too long: prompts
        are not cut.
        """
        texts: dict[int, str] = {}
        found, copies = self._requests(requests)
        with tqdm(total=len(found), disable=disable_tqdm or self.rank > 0, desc="decoding") as bar:
            for wanted, group in groupby(found, key=lambda request: request.wanted):
                todo = list(group)
                for start in range(0, len(todo), self.settings.batch_size):
                    batch = todo[start : start + self.settings.batch_size]
                    written = self._decode(batch, wanted)
                    for request, text in zip(batch, written, strict=True):
                        texts[request.place] = text
                        self.cache_hook.add_partial("generate_until", request.key, text)
                    bar.update(len(batch))
        return [texts[copies.get(place, place)] for place in range(len(requests))]

    def _requests(self, requests: list[Instance]) -> tuple[list[Request], dict[int, int]]:
        """The texts to write, equal wants together; and the places of those that are copies.

        lm-eval asks again for the last request of a process that has fewer than another has: that
        is a copy. Where a task wants several texts of one prompt, each has noise of its own.
        """
        asked: dict[int, list[int]] = {}
        copies, found = {}, []
        for place, request in enumerate(requests):
            places = asked.setdefault(id(request), [])
            if len(places) >= (request.repeats or 1):
                copies[place] = places[0]
                continue
            context, given = cast(tuple[str, dict[str, Any]], request.args)
            prompt = self.tok_encode(context) or [self.prefix_token_id]
            wanted = Wanted.of(given, self.settings.max_gen_toks)
            if len(prompt) + wanted.columns > self.max_length:
                raise ConfigError(
                    f"document {request.doc_id} of {request.task_name} has a prompt of {len(prompt)}"
                    f" tokens and asks for {wanted.columns}: {self.base.name} was made for "
                    f"{self.max_length}. Give fewer worked examples, or max_gen_toks by --gen_kwargs"
                )
            own = example_id(request, context, repeat=len(places))
            found.append(Request(place, own, prompt, wanted, request.args))
            places.append(place)
        # Prompts of about one length together: less padding. What is written does not depend on it.
        found.sort(key=lambda one: (repr(one.wanted), -len(one.prompt)))
        return found, copies

    def _decode(self, batch: list[Request], wanted: Wanted) -> list[str]:
        ids = tuple(request.example_id for request in batch)
        canvas = self.base.canvas([request.prompt for request in batch], wanted.columns)
        policy = self._drawing(wanted.temperature, wanted.top_p)
        steps = decode(self.base, canvas, policy, Noise(self.settings.seed, ids))
        written = record(canvas, self.tally.timed(steps, self.base.device), ids)
        return [self._text(one.response.tolist(), wanted.until) for one in written]

    def _drawing(self, temperature: float, top_p: float) -> Policy:
        """The prepared policy with a task's own temperature."""
        draw: Draw = replace(self.policy.draw, temperature=temperature, top_p=top_p)
        return replace(self.policy, draw=draw)

    def _text(self, ids: list[int], until: Sequence[str]) -> str:
        """A response up to its end, and to the first stop; a stop may name a special token."""
        special: dict[str, int] = self.tokenizer.get_added_vocab()  # pyright: ignore
        ends = {special[stop] for stop in until if stop in special}
        cut = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        return cut_at(self.base.decode(ids[:cut]), until)

    # Likelihoods

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Per continuation, its log-likelihood under the base in nats (see `likelihood`), and whether
        the decoder, made greedy, writes it. The policy has no part in the former."""
        results = []
        size = self.settings.batch_size
        quiet = disable_tqdm or self.rank > 0
        for start in tqdm(range(0, len(requests), size), disable=quiet, desc="log-likelihoods"):
            part = requests[start : start + size]
            answers = [Answer(tuple(before), tuple(tokens)) for _, before, tokens in part]
            values = self._likelihoods(answers)
            for (key, _, _), answer, value in zip(part, answers, values, strict=True):
                results.append((value, self.settings.greedy and self._writes(answer)))
                self.cache_hook.add_partial("loglikelihood", key, results[-1])
        return results

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of whole texts, in windows as long as the base allows, each given the
        token before it, the last one as many as still fit."""
        results = []
        for request in tqdm(requests, disable=disable_tqdm or self.rank > 0, desc="texts"):
            (text,) = cast(tuple[str], request.args)
            windows = get_rolling_token_windows(
                token_list=self.base.encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
            pairs = (make_disjoint_window(window) for window in windows)
            answers = [Answer(tuple(before), tuple(tokens)) for before, tokens in pairs]
            results.append(sum(self._likelihoods(answers)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), results[-1])
        return results

    def _likelihoods(self, answers: list[Answer]) -> list[float]:
        chosen = self.settings
        return log_likelihoods(self.base, answers, chosen.samples, chosen.seed, chosen.batch_size)

    def _writes(self, answer: Answer) -> bool:
        """Does the greedy decoder write this? It is asked no further than its first other token."""
        behind = columns_behind(self.base, len(answer.prompt) + len(answer.tokens))
        canvas = self.base.canvas([answer.prompt], len(answer.tokens) + behind)
        right = torch.tensor(answer.tokens, device=self.base.device)
        steps = decode(self.base, canvas, self._drawing(0.0, 1.0), Noise(self.settings.seed, (0,)))
        for step in steps:
            response = step.canvas.tokens[0, canvas.response][: len(right)]
            if bool(((response != right) & (response != self.base.mask_id)).any()):
                return False
        return True

    # Several processes: lm-eval deals the documents, and collects what came of them

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The processes' tensors, one after another."""
        if self.world_size == 1:
            return tensor
        mine = tensor.detach().cpu().reshape(-1)
        parts = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(parts, mine)
        return torch.cat(parts)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any]:
        """The processes' objects, in process `dst`; nothing in the others."""
        if self.world_size == 1:
            return [obj]
        parts: list[Any] = [None] * self.world_size if self.rank == dst else []
        dist.gather_object(obj, parts or None, dst=dst)
        return parts

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()


def _join() -> tuple[int, int]:
    """This process's number among all of them, on all machines, and how many there are.

    Raises ConfigError where SLURM started several that do not know of each other.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        if slurm_tasks() > 1:
            raise ConfigError("srun started several processes: start one per machine, of torchrun")
        return 0, 1
    if not dist.is_initialized():
        # Counts and texts go between the processes: gloo will do, and waits as long as it is told.
        dist.init_process_group("gloo", timeout=PATIENCE)
    return dist.get_rank(), world


def _device(asked: str) -> str:
    """Where this process's base goes. lm-eval asks for a GPU where its user named no device."""
    if asked == DEFAULT_DEVICE and not torch.cuda.is_available():
        log.warning("lm-eval asks for %s, which is not here: on the CPU (--device cpu)", asked)
        return "cpu"
    if asked.partition(":")[0] == "cuda" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return asked
