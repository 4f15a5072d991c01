"""Draw exact trajectories.

python -m train.generate --config configs/generate/tiny.yaml
"""

from dlmjoint.cli import run
from dlmjoint.trajectories.generate import generate

if __name__ == "__main__":
    run(generate)
