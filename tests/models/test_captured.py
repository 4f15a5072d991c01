"""Compiled forwards and passes: what they write is what the plain ones write."""

import json
import logging
import subprocess
import sys

import pytest
import torch

from dlmjoint.errors import ConfigError
from dlmjoint.models.load import Loading
from dlmjoint.models.parts.captured import Captured, check_compiler


@pytest.mark.slow
def test_compiled_forwards_write_token_for_token_what_plain_ones_write() -> None:
    # In a process of its own: the checks of shapes cannot be compiled.
    script = [sys.executable, "-m", "tests.models.compiled_tokens"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    said = told.pop("said")
    for plain, compiled in told.values():
        assert compiled[0] == plain[0]
        # Forwards and columns: a finished row that has stayed to keep a shape costs nothing.
        assert compiled[1:3] == plain[1:3]
        assert compiled[3] < 5  # seconds: what compiling took is not among them
    # A pass; forwards of four, two and one rows; looks at several cells and at one, draws likewise.
    assert len(set(said)) == len(said) <= 1 + 3 + 2 + 2
    for what in ("a look", "a draw"):
        assert any(message.startswith(f"compiling {what}") for message in said)


def test_a_shape_is_announced_once_and_its_first_run_is_left_out_of_the_clock(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    monkeypatch.setattr("dlmjoint.models.parts.captured.check_compiler", lambda device: None)
    doubled = Captured(lambda x: x + x, "a sum", torch.device("cpu"))
    caplog.set_level(logging.INFO)
    for rows in (2, 2, 3):
        assert torch.equal(doubled(torch.ones(rows, 5)), torch.full((rows, 5), 2.0))
    said = [record.message for record in caplog.records]
    assert said == ["compiling a sum of 2 x 5, once", "compiling a sum of 3 x 5, once"]


def test_what_is_compiled_for_any_size_is_announced_once_for_all_sizes_above_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)
    monkeypatch.setattr("dlmjoint.models.parts.captured.check_compiler", lambda device: None)
    split = Captured(lambda x: (x + x, x), "a pair", torch.device("cpu"), any_size=True)
    caplog.set_level(logging.INFO)
    for rows in (2, 3, 1, 4):
        assert torch.equal(split(torch.ones(rows, 5))[0], torch.full((rows, 5), 2.0))
    said = [record.message for record in caplog.records]
    assert said == ["compiling a pair of n x n, once", "compiling a pair of 1 x n, once"]


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install triton"):
        check_compiler(torch.device("cuda"))
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(ConfigError, match="C\\+\\+ compiler"):
        check_compiler(torch.device("cpu"))


def test_a_base_in_parts_or_in_few_bits_is_not_compiled() -> None:
    with pytest.raises(ConfigError, match="leave out device_map and bits"):
        Loading(compile=True, device_map="auto")
