"""The model card of a code base: what it is, what it was trained on, under which licences."""

import json
from pathlib import Path

from dlmjoint.code.corpus import MANIFEST
from dlmjoint.disk.provenance import write_text
from dlmjoint.pretrain.train import History

CARD = """---
license: apache-2.0
library_name: dlmjoint
language: code
---

# A Dream of short Python functions

A masked diffusion language model of the Dream class, trained from nothing by `python -m train.code_base` of
dlmjoint: {examples:,} canvases of {canvas} tokens, from those of {functions:,} functions that fit one. It writes
one short Python function and knows nothing else; it is made to measure decoders with, not to program with.

```python
import dlmjoint

base = dlmjoint.load_base("checkpoints/code-dream")
print(dlmjoint.generate(base, 4, max_new_tokens={response}).texts)
```

`training.json` has the loss over training, `provenance.json` the settings of the last run.

## Trained on

Functions of at most 14 lines and 260 characters, without comments and docstrings, out of these packages, whose licences
ask for attribution; copies left out. Samples may repeat them: `verbatim` in the evaluation is how often.
Validation and test are whole packages that training did not see.

| distribution | version | licence | split | functions |
|---|---|---|---|--:|
{rows}
"""
ROW = "| {distribution} | {version} | {licence} | {split} | {functions:,} |"


def write_card(folder: Path, canvas: int) -> None:
    """Write `README.md` of a trained folder, from its manifest and its history."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    text = CARD.format(
        canvas=canvas,
        response=canvas - 1,
        examples=History.of(folder).examples,
        functions=manifest["functions"]["train"],
        rows="\n".join(ROW.format(**row) for row in manifest["distributions"]),
    )
    write_text(folder / "README.md", text)
