"""Train the tiny Dream that ships in checkpoints/tiny-dream.

python -m train.tiny_base --folder checkpoints/tiny-dream
"""

from dlmjoint.cli import run
from dlmjoint.tiny.pretrain import pretrain_base

if __name__ == "__main__":
    run(pretrain_base)
