"""Decode, score and report.

python -m eval.run --config configs/eval/tiny.yaml
"""

from dlmjoint.cli import run
from dlmjoint.evaluation.commands import evaluate

if __name__ == "__main__":
    run(evaluate)
