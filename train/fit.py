"""Distil trajectories into a joint sampler.

python -m train.fit fit --config configs/fit/tiny.yaml
"""

import sys

from dlmjoint.cli import main

if __name__ == "__main__":
    main(sys.argv[1:])
