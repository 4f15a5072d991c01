"""Fetch the pinned wheels and extract the functions that the code base is trained on.

python -m train.code_corpus
"""

from dlmjoint.cli import run
from dlmjoint.code.corpus import make_corpus

if __name__ == "__main__":
    run(make_corpus)
