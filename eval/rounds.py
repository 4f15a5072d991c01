"""What rounds of verified decoding cost and what they give: the table of docs/decoding.md.

python -m eval.rounds --base Dream-org/Dream-v0-Base-7B
"""

from dlmjoint.cli import run
from dlmjoint.costs.rounds import tell_rounds

if __name__ == "__main__":
    run(tell_rounds)
