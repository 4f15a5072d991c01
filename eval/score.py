"""Score an evaluation again, without decoding.

python -m eval.score --run_dir runs/tiny/eval
"""

from dlmjoint.cli import run
from dlmjoint.evaluation.commands import score

if __name__ == "__main__":
    run(score)
