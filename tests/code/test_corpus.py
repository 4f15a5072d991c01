"""The corpus is built from wheels alone, and nothing held out is in training."""

import json
import zipfile
from pathlib import Path

import pytest

from dlmjoint.code import corpus
from dlmjoint.code.corpus import HELD_OUT, MANIFEST, SOURCES, Wheel, build, read
from dlmjoint.errors import ConfigError

BODY = "def {}(self, value):\n    return self.{} + value\n"
COMMITTED = json.loads(Path(corpus.__file__).with_name(MANIFEST).read_text())


def write_wheel(folder: Path, name: str, licence: str, files: dict[str, str]) -> None:
    """A wheel of some sources."""
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        metadata = f"Metadata-Version: 2.4\nName: {name}\nLicense-Expression: {licence}\n"
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", metadata)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """Two distributions to train on and a held-out one, with copies across them."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    files = {"zebra/a.py": BODY.format("one", "first"), "zebra/old.py": "print 'two'"}
    write_wheel(folder, "zebra", "MIT", files | {"zebra/_vendor/b.py": BODY.format("b", "b")})
    write_wheel(folder, "ant", "Apache-2.0", {"ant/a.py": BODY.format("copied", "first")})
    held = BODY.format("renamed", "first") + BODY.format("two", "second")
    write_wheel(folder, "toolz", "BSD-3-Clause", {"toolz/a.py": held})
    return folder


def test_a_held_out_distribution_keeps_only_what_is_not_in_training(
    tmp_path: Path, wheels: Path
) -> None:
    build(tmp_path, wheels)
    assert read(tmp_path, "train") == [BODY.format("copied", "first").rstrip()]
    assert read(tmp_path, "test") == [BODY.format("two", "second").rstrip()]
    assert read(tmp_path, "validation") == []


def test_the_manifest_tells_versions_licences_and_counts(tmp_path: Path, wheels: Path) -> None:
    build(tmp_path, wheels)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["functions"] == {"train": 1, "validation": 0, "test": 1}
    assert manifest["distributions"][1] == {
        "distribution": "zebra",
        "version": "1.0",
        "licence": "MIT",
        "split": "train",
        "functions": 0,
        "unparsable_files": 1,
    }


def test_a_copyleft_wheel_is_refused_by_name(tmp_path: Path, wheels: Path) -> None:
    write_wheel(wheels, "gnu", "LGPL-3.0-only OR MIT", {"gnu/a.py": ""})
    with pytest.raises(ConfigError, match=r"gnu-1\.0.*LGPL-3\.0-only OR MIT"):
        build(tmp_path, wheels)


def test_a_licence_is_read_from_classifiers_where_there_is_no_expression(tmp_path: Path) -> None:
    path = tmp_path / "old-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        classifier = "Classifier: License :: OSI Approved :: BSD License"
        wheel.writestr(
            "old-1.0.dist-info/METADATA",
            f"Name: old\n{classifier}\nLicense: see file\n",
        )
    assert Wheel(path).licence == "BSD License"
    assert Wheel(path).is_permissive


def test_a_corpus_that_was_not_built_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.code_corpus"):
        read(tmp_path, "train")


def test_the_committed_manifest_is_of_the_pinned_wheels() -> None:
    pinned = [line.split(" ")[0] for line in SOURCES.read_text().splitlines()]
    listed = [f"{row['distribution']}=={row['version']}" for row in COMMITTED["distributions"]]
    assert sorted(listed) == sorted(pinned)


def test_every_split_is_of_whole_distributions_and_none_is_empty() -> None:
    assert min(COMMITTED["functions"].values()) > 5_000
    for row in COMMITTED["distributions"]:
        assert row["split"] == HELD_OUT.get(row["distribution"], "train")
        assert row["functions"] > 0
