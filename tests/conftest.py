"""Toy bases, golden data and shared fixtures. No test needs a network or a download."""

import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import jaxtyping
import pytest
import torch

import dlmjoint
from dlmjoint.decoding import decode as loop
from dlmjoint.decoding.policy import Policy
from dlmjoint.models.base import Base
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from dlmjoint.models.toy import TableModel
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.random import Noise
from dlmjoint.types import Canvas, Step
from tests import Sampled
from tests.show.browser import Browser, find_browser

checked = loop.decode


@torch.inference_mode()
def _decode(base: Base, canvas: Canvas, policy: Policy, noise: Noise) -> Iterator[Step]:
    """The loop as it is without checks. They wrap it in a function that is no generator, and torch then
    is in inference mode while the generator is made, not while it runs."""
    yield from checked(base, canvas, policy, noise)


loop.decode = _decode  # before anybody imports it by name

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
PUBLISHED = Path(dlmjoint.__file__).parent / "models" / "published"


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not walk it every time."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _quiet_progress_bars() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()


_sampled = cache(lambda test: Sampled())


@pytest.fixture(autouse=True)
def _shapes_are_checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every call of a slow test, on a sample of a long one's; all cases of one test are one."""
    test = request.node.nodeid.partition("[")[0]
    skips = False if request.node.get_closest_marker("slow") else _sampled(test)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", skips)


@pytest.fixture(scope="session")
def golden_dream() -> TransformerBase:
    """The golden tiny Dream, random weights, published layout."""
    return load_base(GOLDEN / "dream")


@pytest.fixture(scope="session")
def golden_llada() -> TransformerBase:
    """The golden tiny LLaDA: random weights, published layout, no tokenizer."""
    return load_base(GOLDEN / "llada")


@pytest.fixture(scope="session")
def golden_sdar() -> TransformerBase:
    """The golden tiny SDAR: random weights, published layout, blocks of four, no tokenizer."""
    return load_base(GOLDEN / "sdar")


@pytest.fixture
def random_dream() -> Dream:
    """A random Dream without a tokenizer."""
    return Dream.random()


@pytest.fixture
def random_sampler(random_dream: Dream) -> JointSampler:
    """A sampler over `random_dream` with an output large enough to change every prediction."""
    return JointSampler.from_base(random_dream, gain=1.0).eval()


@pytest.fixture
def table() -> TableModel:
    """An enumerable joint."""
    return TableModel.random()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser, where one is installed."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium is installed: pages are not opened")
    with Browser(program, tmp_path_factory.mktemp("profile")) as running:
        yield running
