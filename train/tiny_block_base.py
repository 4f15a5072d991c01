"""Train the tiny SDAR that ships in checkpoints/tiny-sdar.

python -m train.tiny_block_base --folder checkpoints/tiny-sdar
"""

from dlmjoint.cli import run
from dlmjoint.tiny.block_diffusion import pretrain_block_base

if __name__ == "__main__":
    run(pretrain_block_base)
