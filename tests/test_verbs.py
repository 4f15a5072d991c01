"""The front door: help at once, names that are nearly right, completion."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dlmjoint
from dlmjoint import cli
from dlmjoint.completion import flags_of, script
from dlmjoint.verbs import COMMANDS, FIRST, VERBS, overview
from tests.conftest import GOLDEN

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "lightning", "transformers", "datasets", "jsonargparse", "numpy", "rich")


def _python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)


@pytest.mark.parametrize("argument", ["--help", "-h", "--version", "evl", None])
def test_the_front_door_answers_without_importing_what_takes_long(argument):
    program = (
        "import sys\nfrom dlmjoint.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules], len(sys.modules) > 400)"
    )
    done = _python(program, *([argument] if argument else []))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED [] False"


def test_lightning_is_imported_only_by_what_runs_under_its_trainer():
    verbs = [verb for verb in COMMANDS if verb != "generate"]
    program = (
        "import sys\nfrom contextlib import suppress\nfrom dlmjoint.cli import main\n"
        "main(['info', sys.argv[1]])\n"
        "assert not {'lightning', 'datasets'} & set(sys.modules)\n"
        f"for verb in {verbs}:\n"
        "    with suppress(SystemExit): main([verb, '--help'])\n"
        "    assert 'lightning' not in sys.modules, verb\n"
        "with suppress(SystemExit): main(['fit', '--help'])\n"
        "assert 'lightning' in sys.modules\n"
    )
    done = _python(program, str(GOLDEN / "dream"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "program", ["main(['info', BASE]); import datasets", "import datasets; main(['info', BASE])"]
)
def test_a_command_shows_no_bars_of_datasets_whether_imported_before_or_after(program):
    told = "print('BARS', not datasets.utils.are_progress_bars_disabled())"
    done = _python(
        f"import sys\nfrom dlmjoint.cli import main\nBASE = sys.argv[1]\n{program}\n{told}",
        str(GOLDEN / "dream"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "BARS False"


def _entries(told: str) -> list[str]:
    return re.findall(r"^  ([a-z-]+)", told, re.MULTILINE)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_alone_and_with_help_it_shows_the_first_days_commands_and_then_the_rest(arguments, capsys):
    cli.main(arguments)
    told = capsys.readouterr().out
    assert told == overview()
    first, rest = told.split("\nThen:\n")
    assert _entries(first) == ["sample", "generate", "fit", "eval"]
    assert sorted(_entries(first) + _entries(rest)) == sorted(VERBS)
    assert max(map(len, told.splitlines())) <= 88


def test_the_first_days_lines_name_files_that_are_there():
    for verb, line in FIRST.items():
        program, given, _, path = line.split()
        assert (program, given) == ("dlmjoint", verb)
        assert (ROOT / path).exists()


@pytest.mark.parametrize("verb", list(COMMANDS))
def test_a_summary_is_the_first_line_of_what_the_command_says_of_itself(verb):
    assert COMMANDS.summary(verb) == (COMMANDS[verb].__doc__ or "").strip().splitlines()[0]


def test_public_names_are_there_though_none_is_imported_before_it_is_used():
    program = (
        "import sys, dlmjoint\nassert 'torch' not in sys.modules\n"
        "assert set(dlmjoint.__all__) == set(dlmjoint.WHERE) <= set(dir(dlmjoint))\n"
        "for name in dlmjoint.__all__: assert getattr(dlmjoint, name).__name__ == name\n"
        "from dlmjoint import *\nassert Policy is dlmjoint.Policy\n"
    )
    done = _python(program)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'Polciy'"):
        dlmjoint.Polciy  # noqa: B018  (asking for it is the test)


def _complaint(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as failure:
        cli.main(arguments)
    assert failure.value.code == 2
    return capfd.readouterr().err


SAMPLE = ["sample", "--base", "b"]
TASKS = "dlmjoint.evaluation.tasks"


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["evl"], "eval"),
        (["trian", "--config", "c"], "; dlmjoint --help names them all"),
        ([*SAMPLE, "--max_new_tokans", "3"], "--max_new_tokens"),
        ([*SAMPLE, "--max-new-tokans", "3"], "--max_new_tokens"),
        ([*SAMPLE, "--policy.commits_per_forwrd", "3"], "commits_per_forward"),
        ([*SAMPLE, "--policy.refine", "dlmjoint.Joint", "--policy.refine.samplr", "s"], "sampler"),
        ([*SAMPLE, "--policy.refine", "dlmjoint.decoding.refine.Jiont"], "Joint"),
        ([*SAMPLE, "--policy.refine", "dlmjoint.decoding.refin.Joint"], "refine"),
        ([*SAMPLE, "--policy.refine", "dlmjoint.decodng.refine.Joint"], "decoding"),
        ([*SAMPLE, "--policy.refine", "dlmjont.decoding.refine.Joint"], "dlmjoint"),
        (["fit", "--model.depht", "3"], "--model.depth"),
        (["fit", "--model.start", "dlmjoint.distill.start.Existin"], "Existing"),
    ],
)
def test_a_name_that_is_nearly_right_is_answered_by_the_one_that_is(arguments, nearest, capfd):
    told = _complaint(arguments, capfd)
    assert (nearest if nearest.startswith(";") else f"did you mean {nearest}?") in told


@pytest.mark.parametrize(
    ("verb", "settings", "nearest"),
    [
        ("eval", {"base": "b", "taskss": []}, "tasks"),
        ("generate", {"base": "b", "max_new_tokans": 3}, "max_new_tokens"),
        ("fit", {"model": {"base": "b", "dept": 3}}, "model.depth"),
        ("fit", {"trainer": {"max_step": 3}}, "trainer.max_steps"),
        ("score", {"run_dir": "r", "tasks": [{"class_path": f"{TASKS}.gsm8k.GSM8k"}]}, "GSM8K"),
        (
            "score",
            {"tasks": [{"class_path": f"{TASKS}.gsm8k.GSM8K", "init_args": {"shotz": 3}}]},
            "shots",
        ),
    ],
)
def test_a_key_of_a_config_that_is_nearly_right_is_answered_by_the_one_that_is(
    verb, settings, nearest, capfd, tmp_path
):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    assert f"did you mean {nearest}?" in _complaint([verb, "--config", str(path)], capfd)


def test_a_name_that_is_like_no_other_is_answered_by_no_guess(capfd):
    assert "did you mean" not in _complaint([*SAMPLE, "--zzzzzz", "3"], capfd)
    assert "did you mean" not in _complaint(["generate", "--base", "b"], capfd)


def _completed(text: str, *words: str) -> list[str]:
    """What bash offers for the last of the words of a command line."""
    line = " ".join(f"'{word}'" for word in words)
    asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _dlmjoint"
    program = f"{text}\n{asked}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", program], text=True, capture_output=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_and_their_settings():
    text = script({"score": flags_of(cli.main, "score"), "fit": flags_of(cli.main, "fit")})
    assert _completed(text, "dlmjoint", "s") == ["score", "sample"]
    assert set(_completed(text, "dlmjoint", "")) == {*VERBS, "--help", "--version"}
    assert _completed(text, "dlmjoint", "score", "--r") == ["--run_dir"]
    assert _completed(text, "dlmjoint", "fit", "--model.dep") == [
        "--model.depth",
        "--model.depth_weights",
    ]
    assert _completed(text, "dlmjoint", "score", "ru") == []  # a value: bash's own file names
    assert _completed(text, "dlmjoint", "lm-eval", "--") == []
