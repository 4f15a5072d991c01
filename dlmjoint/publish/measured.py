"""The measurements of a sampler as a card shows them, and as a recipe that makes them again."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.refine import Joint, Trained
from dlmjoint.errors import DataError, MismatchError
from dlmjoint.evaluation.recipes import THIS_FOLDER
from dlmjoint.evaluation.running import settings
from dlmjoint.evaluation.telling.expected import expected_of
from dlmjoint.evaluation.telling.table import DETAILS, Table, heading, table_of
from dlmjoint.models.files import torch_dtype
from dlmjoint.models.joint import JointSampler
from dlmjoint.publish.written import read_json

SCORES = "scores.json"


@dataclass(frozen=True)
class Measured:
    """A scored evaluation, as far as it is about one sampler and what it is compared with."""

    folder: Path
    settings: dict[str, Any]
    """Of the run: base, seeds, decoders, tasks."""
    scores: dict[str, Any]
    """The decoders that draw with the sampler or with none."""
    of_sampler: list[str]
    """The decoders that draw with the sampler."""

    @classmethod
    def of(cls, folder: Path, sampler: Path) -> "Measured":
        """The evaluation in a folder. Raises DataError if it was not scored, MismatchError if it is
        not one of this very sampler."""
        way_out = (
            "evaluate the sampler with `dlmjoint eval --config FILE --run_dir DIR`, then publish "
            "with --evaluation DIR"
        )
        made = read_json(folder / settings.FILE, way_out)
        scores = read_json(folder / SCORES, way_out)
        found = {name: part["weights"] for name, part in made["decoders"].items()}
        wanted = _weights(sampler, made["base"]["dtype"])
        own = [name for name in scores["decoders"] if found.get(name) == wanted]
        if not own:
            raise MismatchError(
                f"no decoder of {folder} draws with the sampler in {sampler} (weights {wanted}; there "
                f"are {found}): the numbers are another sampler's. {way_out}"
            )
        if not any(scores["decoders"][name]["tasks"] for name in own):
            raise DataError(f"{folder} has measured nothing of {', '.join(own)}: {way_out}")
        shown = {
            name: part
            for name, part in scores["decoders"].items()
            if name in own or (name in found and found[name] is None)
        }
        return cls(folder, made, scores | {"decoders": shown}, own)

    def check(self, fingerprint: str | None) -> None:
        """Raise MismatchError unless it was run with the base of this fingerprint."""
        base = self.settings["base"]
        if base["fingerprint"] != fingerprint:
            raise MismatchError(
                f"{self.folder} decoded with {base['name']} (weights {base['fingerprint']}), the "
                f"sampler belongs to weights {fingerprint}: evaluate it with its own base"
            )

    def table(self) -> str:
        """The Markdown table, the number of examples in its last row."""
        shown = table_of({"": self.scores}, leave_out=DETAILS)
        counts = self._counts(shown)
        return shown.markdown() + f"| n | {' | '.join(counts)} |\n"

    def _counts(self, shown: Table) -> list[str]:
        """Examples behind every column of the table; costs are those of all tasks together."""
        found: dict[str, str] = {}
        for part in (*self.scores["decoders"].values(), {"tasks": self.scores["ceiling"]}):
            for task, metrics in part["tasks"].items():
                for metric, score in metrics.items():
                    name = heading(metric)
                    for title in (name, f"{name} ({task})"):
                        found.setdefault(title, f"{score['n']:,}")
        examples = next(iter(self.scores["decoders"].values()))["cost"]["examples"]
        return [found.get(title, f"{examples:,}") for title in shown.headings]

    def results(self) -> list[EvalResult]:
        """The sampler's numbers as the hub's metadata."""
        return list(self._results())

    def _results(self) -> Iterator[EvalResult]:
        for decoder in self.of_sampler:
            for task, metrics in self.scores["decoders"][decoder]["tasks"].items():
                given = self.settings["tasks"][task]["init_args"]
                for metric, score in metrics.items():
                    if metric in DETAILS:
                        continue
                    yield EvalResult(
                        task_type="text-generation",
                        dataset_type=str(given.get("source", task)),
                        dataset_name=task,
                        metric_type=metric,
                        metric_name=f"{heading(metric)}, {decoder}",
                        metric_value=round(score["value"], 4),
                        metric_args={key: round(score[key], 4) for key in ("low", "high", "n")},
                    )

    def recipe(self, base: str, revision: str | None, name: str) -> str:
        """The evaluation as a recipe that expects what was measured; the sampler is whoever's folder
        it lies in. Raises DataError if a part was given to the run as an object."""
        made = self.settings
        decoders = {key: made["decoders"][key]["policy"] for key in self.scores["decoders"]}
        trained = settings.describe(Trained(THIS_FOLDER))
        for key in self.of_sampler:
            policy = decoders[key]
            decoders[key] = policy | {"init_args": policy["init_args"] | {"refine": trained}}
        bits = made["base"].get("bits")
        expected = expected_of(self.scores, f"the card of {name}", list(self.scores["decoders"]))
        values = {
            "base": base,
            **({} if revision is None else {"revision": revision}),
            "run_dir": f"runs/{name.rpartition('/')[2]}/eval",
            "seed": made["seed"],
            "reference_seed": made["reference_seed"],
            "dtype": made["base"]["dtype"],
            **({} if bits is None else {"loading": {"bits": bits}}),
            "decoders": decoders,
            "tasks": list(made["tasks"].values()),
            "expected": asdict(expected),
        }
        if "'object':" in str(values):
            raise DataError(
                f"{self.folder} was given a decoder or task as a Python object, which no file can "
                "name: evaluate with `dlmjoint eval --config FILE`"
            )
        return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=100)


def _weights(sampler: Path, dtype: str) -> str | None:
    """The hash an evaluation with this sampler would note, beside a base of this dtype."""
    loaded = JointSampler.from_pretrained(sampler, dtype=torch_dtype(dtype))
    return settings.weights_hash(Policy(refine=Joint(loaded)))
