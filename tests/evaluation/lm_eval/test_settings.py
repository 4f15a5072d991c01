"""What `--model_args` may hold."""

import pytest

from dlmjoint.decoding.policy import Policy
from dlmjoint.errors import ConfigError
from dlmjoint.evaluation.lm_eval.settings import read
from tests.evaluation.lm_eval.asking import BASE, SAMPLER


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, Policy()),
        ({"policy": {"commits_per_forward": 4}}, Policy(4)),
        ({"policy": '{"commits_per_forward": 4}'}, Policy(4)),
        ({"policy.commits_per_forward": 4, "policy.block_length": 8}, Policy(4, block_length=8)),
    ],
)
def test_a_policy_is_json_or_dotted(given, policy):
    assert read({"base": BASE, **given}).decoder() == policy


def test_a_policy_is_a_file_that_further_settings_change(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("commits_per_forward: 4\norder: dlmjoint.decoding.order.LeftToRight\n")
    found = read({"base": BASE, "policy": str(path), "policy.commits_per_forward": 2}).decoder()
    assert (found.commits_per_forward, type(found.order).__name__) == (2, "LeftToRight")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"polcy": 1}, "polcy"),
        ({"base": None}, "base"),
        ({"policy": "absent.yaml"}, "absent.yaml"),
        ({"policy.commits_per_forward": 0}, "0"),
        ({"batch_size": "auto:4"}, "batch_size is auto"),
        ({"samples": 0}, "samples is 0"),
        ({"sampler": SAMPLER}, "nothing to do at one token per forward"),
        (
            {
                "sampler": SAMPLER,
                "policy": {
                    "commits_per_forward": 2,
                    "refine": {
                        "class_path": "dlmjoint.decoding.refine.Trained",
                        "init_args": {"sampler": SAMPLER},
                    },
                },
            },
            "both name a refinement",
        ),
    ],
)
def test_model_args_that_cannot_work_are_refused(given, word):
    with pytest.raises(ConfigError, match=word):
        read({"base": BASE, **given})
