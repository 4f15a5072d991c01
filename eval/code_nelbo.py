"""How well a code base knows functions of packages it was not trained on.

python -m eval.code_nelbo --base checkpoints/code-dream
"""

from dlmjoint.cli import run
from dlmjoint.evaluation.held_out import report_nelbo

if __name__ == "__main__":
    run(report_nelbo)
