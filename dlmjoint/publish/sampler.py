"""A joint sampler's folder as others get it: weights, config, card, measurements, provenance."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from dlmjoint.costs.info import compare
from dlmjoint.disk.provenance import write_text
from dlmjoint.errors import DataError, LoadError
from dlmjoint.evaluation.recipes import IN_SAMPLER
from dlmjoint.evaluation.running import settings
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import read_config
from dlmjoint.models.sampler_config import JointSamplerConfig
from dlmjoint.publish.base import find_base
from dlmjoint.publish.measured import SCORES, Measured
from dlmjoint.publish.written import PROVENANCE, commit, read_json, read_provenance

log = logging.getLogger(__name__)

METRICS = "metrics.json"
"""Of the training's last validation, written by `fit`."""
TRAINING = "training.yaml"
EVALUATION = "evaluation"
"""Folder of the scores, in the sampler's own."""
FIT_AGAIN = (
    "a sampler is published with what it was made by, which `dlmjoint fit` and `dlmjoint convert` "
    "write beside it; copy the whole folder they exported, or export it again"
)
GENERATE = '''"""transformers' `generate(..., custom_generate={repo!r})`; needs dlmjoint."""

from dlmjoint.custom_generate import generate_jointly


def generate(model, sampler={repo!r}, **arguments):
    """See `dlmjoint.custom_generate.generate_jointly`."""
    return generate_jointly(model, sampler, **arguments)
'''


def stage_sampler(
    folder: Path,
    output: Path,
    repo: str,
    *,
    evaluation: Path | None,
    training: Path | None,
    base: str | None,
    revision: str | None,
    datasets: Sequence[str],
    license: str,
    public: bool,
) -> None:
    """Write what is to be published into an empty folder.

    Raises LoadError if it is no sampler, DataError if provenance or measurements are missing,
    MismatchError if they are another's, ConfigError if its base is no hub commit although it is to
    be `public`.
    """
    sampler = JointSampler.from_pretrained(folder)
    provenance = read_provenance(folder, FIT_AGAIN)
    metrics = _metrics(folder, provenance)
    config = _with_base(folder, base, revision, public)
    measured = Measured.of(evaluation or folder / EVALUATION, folder)
    measured.check(config.base_fingerprint)
    assert config.base_name is not None
    recipe = measured.recipe(config.base_name, config.base_revision, repo)
    copied = {
        folder / PROVENANCE: PROVENANCE,
        **({folder / METRICS: METRICS} if metrics else {}),
        **({} if training is None else {_existing(training): TRAINING}),
        **{measured.folder / name: f"{EVALUATION}/{name}" for name in (SCORES, settings.FILE)},
    }

    # Nothing is written before everything is known to be there.
    (output / EVALUATION).mkdir()
    for weights in folder.glob("*.safetensors*"):
        shutil.copy2(weights, output / weights.name)
    config.save_pretrained(output)
    for source, name in copied.items():
        shutil.copy2(source, output / name)
    write_text(output / IN_SAMPLER, recipe)
    write_text(output / "custom_generate" / "generate.py", GENERATE.format(repo=repo))
    card = _card(
        repo,
        config,
        measured,
        license=license,
        datasets=datasets,
        provenance=provenance,
        depths=_depths(metrics),
        steps=metrics.get("step"),
        parameters=sampler.num_parameters(),
        has_training=training is not None,
    )
    card.save(output / "README.md")
    JointSampler.from_pretrained(output)


def _metrics(folder: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What `fit` measured in training; nothing of a sampler that was converted."""
    if "checkpoint" in provenance["settings"] and not (folder / METRICS).exists():
        return {}
    return read_json(folder / METRICS, FIT_AGAIN)


def _with_base(
    folder: Path, base: str | None, revision: str | None, public: bool
) -> JointSamplerConfig:
    """The sampler's config, the base named as others find it, compared with that base's files.

    Raises LoadError if the base is not there, MismatchError if it is another one.
    """
    config = JointSamplerConfig.from_pretrained(folder)
    place = base or config.base_name
    if place is None or config.base_config is None:
        raise LoadError(f"{folder}: the config names no base; train or convert the sampler again")
    if revision is None and base is None and not Path(place).is_dir():
        revision = config.base_revision
    found = find_base(place, revision, public)
    by = compare(str(folder), found, *read_config(found))["compared_by"]
    log.info("the base %s was compared with the sampler's by %s", place, by)
    config.base_name, config.base_revision = place, found.revision
    config.base_config = {k: v for k, v in config.base_config.items() if k != "_name_or_path"}
    return config


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(
            f"{path} is no file: give the config.yaml in fit's logs, logs/version_0 below its default_root_dir"
        )
    return path


def _depths(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per depth, what the last validation found; empty where there was none."""
    depths = sorted(int(key.rpartition("@")[2]) for key in metrics if key.startswith("val/kl@"))
    names = ("kl", "marginal_kl", "top1")
    return [
        {"passes": depth, **{name: metrics[f"val/{name}@{depth}"] for name in names}}
        for depth in depths
    ]


def _card(
    repo: str,
    config: JointSamplerConfig,
    measured: Measured,
    *,
    license: str,
    datasets: Sequence[str],
    provenance: Mapping[str, Any],
    **more: Any,
) -> ModelCard:
    data = ModelCardData(
        license=license,
        library_name="dlmjoint",
        pipeline_tag="text-generation",
        base_model=config.base_name,
        base_model_relation="adapter",
        datasets=list(datasets) or None,
        tags=["diffusion-language-model", "masked-diffusion", "joint-sampler", "parallel-decoding"],
        model_name=repo.rpartition("/")[2],
        eval_results=measured.results(),
    )
    scored = measured.scores["provenance"]
    with as_file(files("dlmjoint.publish") / "model_card.md") as template:
        card = ModelCard.from_template(
            data,
            template_path=str(template),
            repo=repo,
            config=config,
            tokens=(config.trained_depth or 0) + 1,
            table=measured.table(),
            own=measured.of_sampler,
            base_settings=measured.settings["base"],
            scored=scored,
            scored_by=commit(scored),
            provenance=provenance,
            trained_by=commit(provenance),
            datasets=datasets,
            **more,
        )
    assert isinstance(card, ModelCard)
    return card
