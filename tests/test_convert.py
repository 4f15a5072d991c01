"""`dlmjoint convert`: golden passes from every form of checkpoint, refusals, and no foreign code."""

import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dlmjoint import cli
from dlmjoint.convert import convert, read_checkpoint
from dlmjoint.disk.pickles import Inert
from dlmjoint.errors import ConfigError, LoadError, MismatchError
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.transformer import TransformerBase
from tests.conftest import GOLDEN
from tests.hostile import Hostile

BASE = str(GOLDEN / "dream")
WEIGHTS = load_file(GOLDEN / "adjust" / "reference_sampler.safetensors")
INSIDE = load_file(GOLDEN / "dream" / "model.safetensors")
ADJUST = load_file(GOLDEN / "adjust" / "expected.safetensors")
MEGABYTE = 2**20


@dataclass
class Hyper:
    """What a training script may have left among its hyper-parameters."""

    names: list[str] = field(default_factory=lambda: ["a", "b"])
    sizes: set[int] = field(default_factory=lambda: {1, 2})
    where: Path = Path("somewhere")


def _lightning(path: Path, state: dict[str, Tensor], **more: object) -> Path:
    """A checkpoint with all that Lightning puts into one."""
    layer = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 3,
        "global_step": 20_000,
        "state_dict": OrderedDict(state),
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {"config": Hyper(), "dtype": torch.bfloat16},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        **more,
    }
    torch.save(content, path)
    return path


def _with_base(base: dict[str, Tensor] = INSIDE, prefix: str = "") -> dict[str, Tensor]:
    """The sampler's weights, and the base's under `base_model.`."""
    state = {f"base_model.{name}": weight for name, weight in base.items()} | WEIGHTS
    return {prefix + name: weight for name, weight in state.items()}


def _bare(folder: Path) -> Path:
    torch.save(WEIGHTS, folder / "bare.pt")
    return folder / "bare.pt"


def _safetensors(folder: Path) -> Path:
    save_file({f"module.{name}": w for name, w in WEIGHTS.items()}, folder / "s.safetensors")
    return folder / "s.safetensors"


FORMS: dict[str, Callable[[Path], Path]] = {
    "Lightning, with the base": lambda folder: _lightning(folder / "x.ckpt", _with_base()),
    "Lightning, all behind a prefix": lambda folder: _lightning(
        folder / "x.ckpt", _with_base(prefix="_forward_module.")
    ),
    "a bare state dict": _bare,
    "safetensors": _safetensors,
    "safetensors as published": lambda folder: GOLDEN / "adjust" / "reference_sampler.safetensors",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_converted_checkpoint_computes_the_original_passes(
    tmp_path: Path, form: str, golden_dream: TransformerBase
) -> None:
    convert(FORMS[form](tmp_path), BASE, tmp_path / "sampler")
    sampler = JointSampler.from_pretrained(tmp_path / "sampler")
    sampler.check(golden_dream)
    assert sampler.config.trained_depth == 3
    rows, length = ADJUST["input_ids"].shape
    positions = torch.arange(length).expand(rows, -1)
    attends = torch.ones(rows, length, dtype=torch.bool)
    hidden = ADJUST["base_hidden_shifted"]
    for number, tokens in enumerate(ADJUST["tokens_passes"], 1):
        with torch.no_grad():
            hidden = sampler(golden_dream.embed(tokens), hidden, positions, attends)
        torch.testing.assert_close(hidden, ADJUST[f"hidden_pass{number}"], atol=1e-4, rtol=0)


def test_it_is_the_sampler_that_a_loaded_base_gives(
    tmp_path: Path, golden_dream: TransformerBase
) -> None:
    convert(_bare(tmp_path), BASE, tmp_path / "sampler", trained_depth=7)
    found = JointSampler.from_pretrained(tmp_path / "sampler")
    expected = JointSampler.from_adjust(golden_dream, WEIGHTS)
    for name, weight in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight)
    assert found.config.trained_depth == 7
    assert found.config.base_fingerprint == expected.config.base_fingerprint


def test_the_command_writes_sampler_provenance_and_settings(tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(_bare(tmp_path)), "--base", BASE]
    cli.main(["convert", *arguments, "--output", str(tmp_path / "sampler")])
    assert {path.name for path in (tmp_path / "sampler").iterdir()} == {
        "config.json", "model.safetensors", "provenance.json", "config.yaml",
    }  # fmt: skip


def test_the_command_says_nothing_of_packages_that_it_does_not_use(tmp_path: Path) -> None:
    """In a process of its own: DeepSpeed speaks when it is first imported, which is while the first
    model is saved, and to the standard output of then."""
    arguments = ["--checkpoint", str(_bare(tmp_path)), "--base", BASE]
    done = subprocess.run(
        [sys.executable, "-m", "dlmjoint", "convert", *arguments, "--output", str(tmp_path / "x")],
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout == ""
    assert "DeepSpeed" not in done.stderr
    assert "accelerator" not in done.stderr


def test_a_checkpoint_with_another_base_inside_is_refused(tmp_path: Path) -> None:
    other = INSIDE | {"model.embed_tokens.weight": INSIDE["model.embed_tokens.weight"] + 0.5}
    path = _lightning(tmp_path / "x.ckpt", _with_base(other))
    with pytest.raises(MismatchError, match=r"another base.*base_model\.model\.embed_tokens"):
        convert(path, BASE, tmp_path / "sampler")
    assert not (tmp_path / "sampler").exists()


def test_what_could_be_compared_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    convert(_lightning(tmp_path / "x.ckpt", _with_base()), BASE, tmp_path / "sampler")
    assert "the base inside" in caplog.text
    caplog.clear()
    convert(_bare(tmp_path), BASE, tmp_path / "sampler")
    assert "holds no base" in caplog.text


def _changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """The golden weights, with some replaced, added or (None) left out."""
    state: dict[str, Tensor | None] = {**WEIGHTS}
    state |= {f"drafter.{name.replace('__', '.')}": weight for name, weight in changes.items()}
    return {name: weight for name, weight in state.items() if weight is not None}


NO_ATTENTION = {
    name.removeprefix("drafter.").replace(".", "__"): None for name in WEIGHTS if ".layers." in name
} | {"layers__0__0__weight": torch.zeros(64, 64)}
GAIN = WEIGHTS["drafter.norm_postattn.0.weight"]

MISFITS: dict[str, tuple[dict[str, Tensor], type[Exception], str]] = {
    "nothing of a sampler": (INSIDE, MismatchError, r"no weights named drafter\.\*"),
    "two samplers": (
        WEIGHTS | {f"ema.{name}": w for name, w in WEIGHTS.items()},
        MismatchError,
        "several samplers",
    ),
    "two layers": (_changed(layers__0__1__mlp__weight=GAIN), MismatchError, "several layers"),
    "a copy per depth": (_changed(norm_embed__1__weight=GAIN), MismatchError, "one_noshare"),
    "no attention": (_changed(**NO_ATTENTION), MismatchError, r"missing: block\..*unexpected"),
    "another width": (
        _changed(norm_postattn__0__weight=torch.ones(32)),
        MismatchError,
        r"gain\.weight \(32,\) instead of \(64,\)",
    ),
    "no number": (_changed(norm_postattn__0__weight=GAIN / 0 * 0), LoadError, "not finite"),
    "nothing": ({}, LoadError, "no weights"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    state, error, message = MISFITS[kind]
    path = _lightning(tmp_path / "x.ckpt", state)
    with pytest.raises(error, match=message) as refused:
        convert(path, BASE, tmp_path / "sampler")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "sampler").exists()


def _cut(folder: Path) -> Path:
    path = _lightning(folder / "cut.ckpt", _with_base())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _cut_safetensors(folder: Path) -> Path:
    path = _safetensors(folder)
    path.write_bytes(path.read_bytes()[:-10])
    return path


def _text(folder: Path) -> Path:
    (folder / "x.ckpt").write_text("no checkpoint")
    return folder / "x.ckpt"


def _zip(folder: Path) -> Path:
    torch.save([1, 2, 3], folder / "x.ckpt")
    return folder / "x.ckpt"


def _program(folder: Path) -> Path:
    torch.jit.script(torch.nn.Linear(2, 2)).save(folder / "x.pt")
    return folder / "x.pt"


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda folder: folder / "none.ckpt", "there is no checkpoint file"),
    "a folder": (lambda folder: folder, "there is no checkpoint file"),
    "half a checkpoint": (_cut, "cut off"),
    "half a safetensors file": (_cut_safetensors, "cut off"),
    "a text": (_text, "neither a torch nor a safetensors checkpoint"),
    "a list": (_zip, "holds no weights"),
    "a TorchScript program": (_program, "is a TorchScript program"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    make, message = FILES[kind]
    arguments = ["--checkpoint", str(make(tmp_path)), "--base", BASE]
    with pytest.raises(SystemExit) as ended:
        cli.main(["convert", *arguments, "--output", str(tmp_path / "sampler")])
    assert ended.value.code == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("dlmjoint: error: ")
    assert message in line


def test_another_model_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "Dream"}')
    with pytest.raises(ConfigError, match="holds another model"):
        convert(_bare(tmp_path), BASE, tmp_path)


def test_a_sampler_that_was_trained_here_is_not_written_over(tmp_path: Path) -> None:
    output = tmp_path / "sampler"
    convert(_bare(tmp_path), BASE, output)
    convert(_bare(tmp_path), BASE, output)
    (output / "metrics.json").write_text("{}")
    with pytest.raises(ConfigError, match="`fit` has trained"):
        convert(_bare(tmp_path), BASE, output)


def test_a_conversion_that_ends_half_way_leaves_the_sampler_of_before_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, output = _bare(tmp_path), tmp_path / "sampler"
    convert(checkpoint, BASE, output)
    before = _files(tmp_path)

    def disk_full(folder: Path, settings: object) -> None:
        (folder / "provenance.json").write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr("dlmjoint.convert.write_provenance", disk_full)
    with pytest.raises(OSError, match="no space left"):
        convert(checkpoint, BASE, output, trained_depth=7)
    assert _files(tmp_path) == before


def _files(folder: Path) -> dict[Path, bytes]:
    """All files of a folder and of those in it, with what they hold."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_a_pickle_names_is_run(tmp_path: Path) -> None:
    harm = Hostile(tmp_path / "harm")
    state = _with_base() | {"extra": harm}
    path = _lightning(tmp_path / "x.ckpt", state, harm=harm, callbacks=harm)  # pyright: ignore[reportArgumentType]
    assert set(read_checkpoint(path)) == set(_with_base())
    convert(path, BASE, tmp_path / "sampler")
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(harm))
    assert (tmp_path / "harm").exists()  # it would have been run


def test_an_inert_object_takes_whatever_a_pickle_does_to_it() -> None:
    inert = Inert(1, two=2)
    inert.__setstate__({"a": 1})
    inert["key"] = inert
    inert.append(1)
    inert.extend([1])
    inert.add(1)
    assert vars(inert) == {}


MEASURE = """
import gc, sys
from pathlib import Path
from dlmjoint.convert import convert

def held(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))

small, large, base, output = sys.argv[1:]
convert(Path(small), base, Path(output) / "small")  # what is imported is no part of the second
gc.collect()
before = held("VmRSS")
convert(Path(large), base, Path(output) / "large")
print(held("VmHWM") - before)
"""
"""Prints by how much the process grew at most."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_checkpoint_is_converted_in_a_fraction_of_its_size(tmp_path: Path) -> None:
    """Measured is VmHWM, the most memory that was ever resident in a process of its own (mapped
    pages of the checkpoint included), less what was resident before the conversion."""
    rest = {f"base_model.model.layers.{n}.mlp.weight": torch.zeros(3 << 22) for n in range(6)}
    small = _lightning(tmp_path / "small.ckpt", _with_base())
    large = _lightning(tmp_path / "large.ckpt", rest | _with_base())
    arguments = [sys.executable, "-c", MEASURE, str(small), str(large), BASE, str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    grown = int(done.stdout.split()[-1])
    assert large.stat().st_size > 300_000_000
    assert grown < 15 * MEGABYTE
