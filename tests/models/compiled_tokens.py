"""Decodes with a plain and with a compiled base, where no check of shapes wraps what is compiled.

Run as a module it prints what a test compares, as JSON.
"""

import json
import logging
import sys

import dlmjoint
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Trained
from dlmjoint.decoding.schedules.confidence import ConfidenceThreshold
from dlmjoint.models.load import Loading, load_base
from tests.conftest import CHECKPOINTS

POLICIES = {
    "exact": Policy(),
    "joint": Policy(4, refine=Trained(CHECKPOINTS / "tiny-joint")),
    "rows that finish one by one": Policy(ConfidenceThreshold(0.3)),
}


class Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def main() -> None:
    said = Said()
    logging.getLogger("dlmjoint").addHandler(said)
    logging.getLogger("dlmjoint").setLevel(logging.INFO)
    plain = load_base(CHECKPOINTS / "tiny-dream")
    compiled = load_base(CHECKPOINTS / "tiny-dream", loading=Loading(compile=True))
    told = {}
    for name, policy in POLICIES.items():
        told[name] = [
            [out.sequences, out.tally.base_forwards, out.tally.columns, out.seconds]
            for base in (plain, compiled)
            for out in [dlmjoint.generate(base, 4, policy, max_new_tokens=12, seed=3)]
        ]
    told["said"] = [message for message in said.messages if message.startswith("compiling")]
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
