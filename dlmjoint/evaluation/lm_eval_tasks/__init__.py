"""Tasks in lm-eval's own format. A file that names one of their functions makes the model `dlmjoint`
known to lm-eval's plain command too, which imports the function before it looks for the model."""

from pathlib import Path

import dlmjoint.evaluation.lm_eval.model  # noqa: F401  (registers the model)

FOLDER = Path(__file__).parent
"""What `--include_path` takes."""
