"""Distil trajectories into a joint sampler.

python -m train.fit --config configs/fit/tiny.yaml
"""

import sys

from dlmjoint.cli import main

if __name__ == "__main__":
    main(["fit", *sys.argv[1:]])
