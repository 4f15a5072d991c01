"""`dlmjoint info`: a base's size and the costs of working with it, from its config.json alone."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig

from dlmjoint.costs.arithmetic import H100, Setting, Size, hours, measure, work
from dlmjoint.costs.memory import memory
from dlmjoint.costs.speed import PUBLISHED, PUBLISHED_SETTING, published_speed_ups, speed_ups
from dlmjoint.disk.provenance import provenance, write_json
from dlmjoint.errors import LoadError, MismatchError
from dlmjoint.models.files import ModelFiles
from dlmjoint.models.load import find_family, fingerprint_names, read_config
from dlmjoint.models.sampler_config import JointSamplerConfig
from dlmjoint.models.transformer import FINGERPRINT_ROWS, TransformerBase, fingerprint


def info(
    base: str,
    sampler: str | None = None,
    prompt_length: int = 1,
    max_new_tokens: int = 127,
    batch_size: int = 32,
    fit_batch_size: int = 32,
    window: int = 4,
    depth: int = 3,
    devices: int = 4,
    examples: int = 100_000,
    steps: int = 20_000,
    samples: int = 1_000,
    dtype: str = "bfloat16",
    bits: Literal[4, 8] | None = None,
    flops_per_second: float = H100,
    utilisation: float = 0.4,
    revision: str | None = None,
    json: Path | None = None,
) -> None:
    """What a base and a joint sampler over it cost, by arithmetic: nothing is loaded or timed.

    The base may be named first, without its flag: `dlmjoint info BASE`. Its config.json is enough.
    The defaults are ADJUST's setting for Dream-7B-Base, on H100s.

    Args:
        base: folder or hub id of the base.
        sampler: folder or hub id of a joint sampler: is it one of this base?
        prompt_length: columns of the prompt.
        max_new_tokens: columns of the response.
        batch_size: rows decoded together on one device.
        fit_batch_size: windows per training step, over all devices.
        window: states per window.
        depth: sampler passes of the longest unroll.
        devices: GPUs that share a training step.
        examples: trajectories to generate.
        steps: training steps.
        samples: samples to evaluate, per decoder.
        dtype: of the base's weights.
        bits: per weight, where the base's blocks are quantised.
        flops_per_second: of one GPU, by its data sheet.
        utilisation: the share of it that is reached; 0.4 is an assumption, no measurement.
        revision: pins a hub commit of the base.
        json: also write everything there, as JSON.
    """
    setting = Setting(
        prompt_length=prompt_length,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        fit_batch_size=fit_batch_size,
        window=window,
        depth=depth,
        devices=devices,
        examples=examples,
        steps=steps,
        samples=samples,
        dtype=dtype,
        bits=bits,
        flops_per_second=flops_per_second,
        utilisation=utilisation,
    )
    found = describe(ModelFiles.find(base, revision, weights=False), setting, sampler)
    if json is not None:
        write_json(json, found | {"provenance": provenance({"base": base, "sampler": sampler})})
    show(found, Console())


def describe(files: ModelFiles, setting: Setting, sampler: str | None = None) -> dict[str, Any]:
    """Everything `info` prints, as JSON values: bytes, FLOPs, GPU hours.

    Raises LoadError without a config.json, ConfigError for an unknown family, MismatchError for a
    sampler of another base.
    """
    family, config = read_config(files)
    size = measure(family, config)
    speed = speed_ups(size, setting)
    flops = work(size, setting)
    terms = {
        verb: {name: {"bytes": number, "is": words} for name, (number, words) in parts.items()}
        for verb, parts in memory(size, setting).items()
    }
    return {
        "base": {"name": files.name, "family": family.model_type, "revision": files.revision}
        | asdict(size),
        "sampler": None if sampler is None else compare(sampler, files, family, config),
        "setting": asdict(setting),
        "memory": terms,
        "flops": flops,
        "speed_up": speed,
        "published_speed_up": published_speed_ups(family.model_type, size),
        "gpu_hours": _gpu_hours(setting, flops, speed),
    }


def _gpu_hours(
    setting: Setting, flops: Mapping[str, float], speed: list[dict[str, Any]]
) -> dict[str, Any]:
    """Of all trajectories, of all training steps, of every decoder's samples."""
    gpu = (setting.flops_per_second, setting.utilisation)
    decoders = {
        f"{name}-k{row['commits_per_forward']}": row[name]["flops_per_example"]
        for name in PUBLISHED
        for row in speed
    }
    return {
        "generate": hours(flops["generate"], *gpu),
        "fit": hours(flops["fit"], *gpu),
        "eval": {name: hours(each * setting.samples, *gpu) for name, each in decoders.items()},
    }


def compare(
    name: str, files: ModelFiles, family: type[TransformerBase], config: PreTrainedConfig
) -> dict[str, Any]:
    """What a sampler's config.json says of it, once it is known to fit the base.

    Shapes are compared always, weights where the base's are at hand. Raises LoadError if it is no
    joint sampler, MismatchError if it is one of another base.
    """
    values = ModelFiles.find(name, weights=False).config
    theirs = values.get("base_config")
    if values.get("model_type") != JointSamplerConfig.model_type or theirs is None:
        raise LoadError(f"{name}: its config.json is not a joint sampler's")
    other = find_family(str(theirs.get("model_type")), name)
    if other is not family or other.shapes(other.read_config(theirs)) != family.shapes(config):
        raise MismatchError(
            f"{name} is a sampler of {values.get('base_name')}, a base of other shapes than "
            f"{files.name}: name its own base"
        )
    weights = any(files.folder.glob("*.safetensors"))
    if weights:
        rows = files.read(fingerprint_names(family, config), FINGERPRINT_ROWS)
        if (ours := fingerprint(rows)) != values.get("base_fingerprint"):
            raise MismatchError(
                f"{name} is a sampler of {values.get('base_name')} (weights "
                f"{values.get('base_fingerprint')}), not of {files.name} (weights {ours})"
            )
    return {
        "name": name,
        "trained_depth": values.get("trained_depth"),
        "base_name": values.get("base_name"),
        "base_revision": values.get("base_revision"),
        "compared_by": "weights" if weights else "shapes: the base's weights are not here",
    }


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print what `describe` returned."""
    for table in (_size(found), *_memory(found), _work(found), _speed(found)):
        console.print(table)
    for note in _notes(found):
        console.print(note, soft_wrap=True)


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    setting = found["setting"]
    yield (
        f"GPU hours: {number(setting['flops_per_second'])}FLOP/s per GPU, of which "
        f"{setting['utilisation']:.0%} is assumed to be reached, by base and sampler alike (fit trains "
        "the layer in float32: use a mixed precision, or its share takes longer)."
    )
    if found["published_speed_up"]:
        yield f"* by ADJUST's authors, not here: {PUBLISHED_SETTING}. All else is arithmetic."


def _size(found: Mapping[str, Any]) -> Table:
    base, sampler = found["base"], found["sampler"]
    size = Size(**{name: base[name] for name in Size.__dataclass_fields__})
    table = Table(title=base["name"], show_header=False)
    rows = {
        "family": base["family"],
        "revision": base["revision"] or "a local folder",
        "layers, width": f"{size.layers} x {size.width}, {size.inner} inside",
        "heads": f"{size.heads} of width {size.head_width}, {size.kv_heads} of keys and values",
        **({"blocks": f"{size.block_length} columns"} if size.block_length else {}),
        "vocabulary": f"{size.vocabulary}",
        "parameters": f"{number(size.parameters)} (head: {number(size.head)})",
        "joint layer": f"{number(size.layer_parameters)}, "
        f"{size.layer_parameters / size.parameters:.1%} of the base",
    }
    if sampler is not None:
        rows["sampler"] = (
            f"{sampler['name']}, trained to depth {sampler['trained_depth']} over "
            f"{sampler['base_name']}; compared by {sampler['compared_by']}"
        )
    for row in rows.items():
        table.add_row(*row)
    return table


def _memory(found: Mapping[str, Any]) -> list[Table]:
    setting = found["setting"]
    columns = f"{setting['prompt_length']} + {setting['max_new_tokens']} columns"
    decoded = f"{setting['batch_size']} rows of {columns}"
    windows = setting["fit_batch_size"] // setting["devices"]
    fitted = (
        f"{windows} windows of {setting['window']} states of {columns}, depth {setting['depth']}"
    )
    tables = []
    for verb, terms in found["memory"].items():
        what = fitted if verb == "fit" else decoded
        table = Table(title=f"memory of {verb}, per device: {what}, {setting['dtype']}")
        table.add_column("term")
        table.add_column("bytes", justify="right")
        table.add_column("is")
        for name, term in terms.items():
            table.add_row(name, f"{number(term['bytes'])}B", term["is"])
        table.add_section()
        total = sum(term["bytes"] for term in terms.values())
        table.add_row("together", f"{number(total)}B", "at most: peaks need not coincide")
        tables.append(table)
    return tables


def _work(found: Mapping[str, Any]) -> Table:
    setting, flops, gpu_hours = found["setting"], found["flops"], found["gpu_hours"]
    rows = setting["batch_size"]
    table = Table(title="arithmetic")
    for name in ("of", "FLOPs", "GPU hours"):
        table.add_column(name, justify="left" if name == "of" else "right")
    table.add_row(f"one base forward, {rows} rows half masked", number(flops["base_forward"]))
    table.add_row(f"one sampler pass, {rows} rows half masked", number(flops["sampler_pass"]))
    table.add_row("one exact trajectory", number(flops["trajectory"]))
    table.add_row("one training step", number(flops["fit_step"]))
    for verb, what in (("generate", "examples"), ("fit", "steps")):
        done = f"{gpu_hours[verb]:.3g}"
        table.add_row(f"{verb}: {setting[what]:,} {what}", number(flops[verb]), done)
    return table


def _speed(found: Mapping[str, Any]) -> Table:
    """Speed-ups over exact decoding by arithmetic, and the authors' measured ones."""
    table = Table(title="speed-up over one token per forward")
    table.add_column("K", justify="right")
    kinds = {"by_flops": "FLOPs", "by_bytes_read": "bytes read"}
    for name in PUBLISHED:
        for words in kinds.values():
            table.add_column(f"{name}\nby {words}", justify="right")
        table.add_column(f"hours for\n{found['setting']['samples']:,}", justify="right")
    theirs = found["published_speed_up"]
    for name in theirs:
        table.add_column(f"{name}\nmeasured *", justify="right")
    for row in found["speed_up"]:
        commits, cells = row["commits_per_forward"], []
        for name in PUBLISHED:
            cells += [f"{row[name][kind]:.2f}" for kind in kinds]
            cells.append(f"{found['gpu_hours']['eval'][f'{name}-k{commits}']:.3g}")
        cells += [f"{t[commits]:.2f}" if commits in t else "–" for t in theirs.values()]
        table.add_row(str(commits), *cells)
    return table


def number(value: float) -> str:
    """Four digits and a decimal prefix: `258.8 M`."""
    for prefix, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:.4g} {prefix}"
    return f"{value:.4g} "
