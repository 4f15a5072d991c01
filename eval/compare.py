"""Show several evaluations in one table.

python -m eval.compare --runs+ runs/a --runs+ runs/b
"""

from dlmjoint.cli import run
from dlmjoint.evaluation.commands import compare

if __name__ == "__main__":
    run(compare)
