"""A sampler finds its base."""

import shutil
from pathlib import Path

import pytest

from dlmjoint.errors import LoadError, MismatchError
from dlmjoint.models.dream import Dream
from dlmjoint.models.joint import JointSampler
from dlmjoint.models.load import load_base
from tests.conftest import CHECKPOINTS, GOLDEN


def test_a_sampler_loads_its_base_from_where_its_config_says(tmp_path: Path) -> None:
    found = JointSampler.from_base(load_base(GOLDEN / "dream"))
    found.save_pretrained(tmp_path)
    assert JointSampler.from_pretrained(tmp_path).load_base().name == str(GOLDEN / "dream")


def test_a_base_elsewhere_is_loaded_and_another_base_refused(tmp_path: Path) -> None:
    found = JointSampler.from_base(load_base(GOLDEN / "dream"))
    copy = shutil.copytree(GOLDEN / "dream", tmp_path / "copy")
    found.config.base_name = "nobody/nowhere"
    assert found.load_base(name=copy).name == str(copy)
    with pytest.raises(MismatchError, match=r"load that base, as sampler.load_base\(\) does"):
        found.load_base(name=CHECKPOINTS / "tiny-dream")


def test_a_base_that_is_not_there_is_refused_with_the_way_out(
    random_sampler: JointSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LoadError, match=r"load_base\(name=\.\.\.\)"):
        random_sampler.load_base()


def test_another_commit_of_the_base_is_refused(
    random_dream: Dream, random_sampler: JointSampler
) -> None:
    random_sampler.config.base_revision = "a" * 40
    random_sampler.check(random_dream)
    random_dream.revision = "b" * 40
    with pytest.raises(MismatchError, match=f"load the base with revision={'a' * 40}"):
        random_sampler.check(random_dream)
