"""Train the tiny autoregressive judge that ships in checkpoints/tiny-judge.

python -m train.tiny_judge --folder checkpoints/tiny-judge
"""

from dlmjoint.cli import run
from dlmjoint.tiny.pretrain import pretrain_judge

if __name__ == "__main__":
    run(pretrain_judge)
