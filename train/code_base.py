"""Train the Dream of short Python functions that ships in checkpoints/code-dream.

python -m train.code_base --folder checkpoints/code-dream
"""

from dlmjoint.cli import run
from dlmjoint.code.pretrain import pretrain_base

if __name__ == "__main__":
    run(pretrain_base)
