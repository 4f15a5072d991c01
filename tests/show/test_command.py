"""`dlmjoint sample`: text for other tools, a picture for people, one line for mistakes."""

from pathlib import Path

import pytest

import dlmjoint
from dlmjoint import cli
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Trained
from dlmjoint.errors import ConfigError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from dlmjoint.show.command import encode, sample, spell
from dlmjoint.show.record import WRITERS
from tests.conftest import CHECKPOINTS, GOLDEN

BASE = str(CHECKPOINTS / "tiny-dream")
PROMPT = "<|beginoftext|>Tom has 7 pens."


def test_in_a_pipe_the_text_is_all_of_stdout_and_the_cost_goes_to_stderr(
    tiny: TransformerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = Policy(4, refine=Trained(CHECKPOINTS / "tiny-joint"))
    sample(BASE, PROMPT, policy, max_new_tokens=24, seed=7)
    shown = capfd.readouterr()
    expected = dlmjoint.generate(tiny, [PROMPT], policy, max_new_tokens=24, seed=7)
    assert shown.out == f"{expected.texts[0]}\n"
    assert "24 tokens, 6 base forwards, 18 sampler passes, 4.00 tokens/forward" in shown.err


def test_without_a_prompt_it_is_an_unconditional_sample(
    tiny: TransformerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    sample(BASE, max_new_tokens=12, policy=Policy(3))
    text = dlmjoint.generate(tiny, 1, Policy(3), max_new_tokens=12).texts[0]
    assert capfd.readouterr().out == f"{text}\n"


def test_live_shows_the_legend_and_leaves_the_text(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm-256color")
    sample(BASE, PROMPT, Policy(4), max_new_tokens=8, live=True)
    shown = capfd.readouterr()
    assert all(name in shown.out for name in WRITERS.values())
    assert "8 tokens, 2 base forwards, 4.00 tokens/forward" in shown.out
    assert shown.err == ""


def test_the_command_line_takes_a_policy_and_writes_a_page_and_a_picture(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "page.html"
    decoder = ["--policy.commits_per_forward", "4", "--policy.draw.temperature", "0.5"]
    arguments = ["sample", "--base", BASE, "--prompt", PROMPT, "--max_new_tokens", "8", *decoder]
    cli.main(
        [*arguments, "--html", str(path), "--svg", str(path.with_suffix(".svg")), "--seed", "9"]
    )
    assert "8 tokens" in path.with_suffix(".svg").read_text(encoding="utf-8")
    html = path.read_text(encoding="utf-8")
    assert "Policy(commits_per_forward=4, draw=Draw(temperature=0.5))" in html
    assert '"seed": "9"' in html
    assert "8 tokens" in capfd.readouterr().err


def test_a_chat_prompt_goes_through_the_template(tiny: TransformerBase) -> None:
    assert encode(tiny, "Tom?", chat=True) == tiny.encode_chat("Tom?")
    assert encode(tiny, "Tom?", chat=False) == tiny.encode("Tom?")


def _refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as failure:
        cli.main(["sample", *arguments])
    assert failure.value.code == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    return shown.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base", BASE, "--prompt", "Tom " * 2000], "the longest prompt has"),
        (["--base", BASE, "--prompt", ""], "prompt 0 is empty"),
        (["--base", BASE, "--chat", "true"], "chat is the form of a prompt"),
        (["--base", BASE, "--max_new_tokens", "0"], "max_new_tokens is 0"),
        (["--base", str(GOLDEN / "llada"), "--prompt", "Tom"], "has no tokenizer"),
        (["--base", "no/where"], "no/where is neither a folder nor"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert words in _refused(arguments, capfd)


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for name in ("html", "svg"):
        for path in (tmp_path, tmp_path / "file" / f"page.{name}"):
            line = _refused(["--base", "no/where", f"--{name}", str(path)], capfd)
            assert str(path) in line
            assert f"error: {name}" in line


def test_a_base_without_beginning_of_text_needs_a_prompt(
    tiny: TransformerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "bos_id", None)
    with pytest.raises(ConfigError, match="give prompts"):
        encode(tiny, None, chat=False)


def test_a_tokenizer_without_a_template_takes_no_chat(
    tiny: TransformerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.tokenizer, "chat_template", None)
    with pytest.raises(ConfigError, match="no chat template"):
        encode(tiny, "Tom?", chat=True)


def test_a_policy_is_spelled_by_its_departures_from_the_defaults(random_dream: Dream) -> None:
    assert spell(Policy()) == "Policy()"
    joint = Joint(JointSampler.from_base(random_dream))
    policy = Policy(2, draw=Draw(top_p=0.9, forbid=(3,)), refine=joint, block_length=8)
    assert spell(policy) == (
        "Policy(commits_per_forward=2, draw=Draw(top_p=0.9, forbid=(3,)), "
        "refine=Joint(sampler=JointSampler), block_length=8)"
    )
