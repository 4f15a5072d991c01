"""A folder of trajectories as a data set others can load."""

import shutil
from dataclasses import asdict, replace
from importlib.resources import as_file, files
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from dlmjoint.errors import ConfigError
from dlmjoint.provenance import write_json
from dlmjoint.publish.written import PROVENANCE, commit, read_provenance
from dlmjoint.trajectories.store import TrajectoryStore

DRAW_AGAIN = (
    "trajectories are published with how they were drawn, which `dlmjoint generate` writes beside "
    "them; copy its whole folder"
)
SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}
"""The hub's size categories, by what they are less than."""


def stage_trajectories(
    folder: Path, output: Path, repo: str, *, license: str, base: str | None, revision: str | None
) -> None:
    """Write what is to be published into an empty folder.

    Raises DataError if shards or provenance are missing, or a shard is damaged.
    """
    if revision is not None and base is None:
        raise ConfigError("base_revision is of another base's id: give --base too")
    provenance = read_provenance(folder, DRAW_AGAIN)
    store = TrajectoryStore.open(folder)
    rows = store.read()
    manifest = store.manifest
    if base is not None:
        manifest = replace(manifest, base=base, base_revision=revision)
    for shard in range(manifest.num_shards):
        shutil.copy2(store.path(shard), output / store.path(shard).name)
    write_json(output / "manifest.json", asdict(manifest))
    shutil.copy2(folder / PROVENANCE, output / PROVENANCE)
    data = DatasetCardData(
        license=license,
        pretty_name=f"Trajectories of {manifest.base}",
        size_categories=next((name for most, name in SIZES.items() if len(rows) < most), "n>10M"),
        task_categories=["text-generation"],
        tags=["diffusion-language-model", "masked-diffusion", "trajectories", "dlmjoint"],
        source_datasets=["original"],
        configs=[{"config_name": "default", "data_files": "*.parquet"}],
    )
    with as_file(files("dlmjoint.publish") / "dataset_card.md") as template:
        DatasetCard.from_template(
            data,
            template_path=str(template),
            repo=repo,
            manifest=manifest,
            provenance=provenance,
            drawn_by=commit(provenance),
            examples=len(rows),
            tokens=sum(map(len, rows["order"])),
        ).save(output / "README.md")
