"""A folder of trajectories as a data set others can load."""

import shutil
from dataclasses import asdict, replace
from importlib.resources import as_file, files
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from dlmjoint.disk.provenance import write_json
from dlmjoint.publish.base import check_weights, find_base
from dlmjoint.publish.written import PROVENANCE, commit, read_provenance
from dlmjoint.trajectories.store import TrajectoryStore

DRAW_AGAIN = (
    "trajectories are published with how they were drawn, which `dlmjoint generate` writes beside "
    "them; copy its whole folder"
)
SETTINGS = "config.yaml"
"""The resolved settings of the drawing, where the command wrote them."""
SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}
"""The hub's size categories, by what they are less than."""


def stage_trajectories(
    folder: Path,
    output: Path,
    repo: str,
    *,
    base: str | None,
    revision: str | None,
    license: str,
    public: bool,
) -> None:
    """Write what is to be published into an empty folder.

    Raises DataError if shards or provenance are missing, or a shard is damaged; MismatchError if the
    base is another than they were drawn from, ConfigError if it is no hub commit although they are
    to be `public`.
    """
    provenance = read_provenance(folder, DRAW_AGAIN)
    store = TrajectoryStore.open(folder)
    rows = store.read()
    manifest = store.manifest
    found = find_base(
        base or manifest.base, (None if base else manifest.base_revision) or revision, public
    )
    check_weights(found, manifest.base_fingerprint)
    manifest = replace(manifest, base=found.name, base_revision=found.revision)
    for shard in range(manifest.num_shards):
        shutil.copy2(store.path(shard), output / store.path(shard).name)
    write_json(output / "manifest.json", asdict(manifest))
    for name in (PROVENANCE, SETTINGS):
        if (folder / name).exists():
            shutil.copy2(folder / name, output / name)
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
            has_settings=(output / SETTINGS).exists(),
            examples=len(rows),
            tokens=sum(map(len, rows["order"])),
        ).save(output / "README.md")
