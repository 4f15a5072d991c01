"""Measure speed and memory.

python -m eval.bench --suite full-size
"""

from dlmjoint.bench.command import bench
from dlmjoint.cli import run

if __name__ == "__main__":
    run(bench)
