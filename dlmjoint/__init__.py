"""dlmjoint: a trained layer that lets a frozen diffusion language model write several coherent
tokens per forward.

    base = dlmjoint.load_base("checkpoints/tiny-dream")
    sampler = dlmjoint.JointSampler.from_pretrained("checkpoints/tiny-joint")
    policy = dlmjoint.Policy(4, refine=dlmjoint.Joint(sampler))
    print(dlmjoint.generate(base, 8, policy, max_new_tokens=55).texts)

The loop everything runs through is `dlmjoint.decoding.decode.decode`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlmjoint.decoding.caches.freecache import FreeCache
    from dlmjoint.decoding.decode import decode
    from dlmjoint.decoding.draw import Draw
    from dlmjoint.decoding.early_rules.prophet import Prophet
    from dlmjoint.decoding.guides.ar_guide import ARGuide
    from dlmjoint.decoding.guides.verified import Verified
    from dlmjoint.decoding.policy import Policy
    from dlmjoint.decoding.refine import Joint, Marginals
    from dlmjoint.decoding.schedules.budget import Budget
    from dlmjoint.models.base import Base
    from dlmjoint.models.joint import JointSampler
    from dlmjoint.models.load import Loading, load_base
    from dlmjoint.random import Noise
    from dlmjoint.sampling import Output, generate

__version__ = "0.1.0"
__all__ = [
    "ARGuide",
    "Base",
    "Budget",
    "Draw",
    "FreeCache",
    "Joint",
    "JointSampler",
    "Loading",
    "Marginals",
    "Noise",
    "Output",
    "Policy",
    "Prophet",
    "Verified",
    "decode",
    "generate",
    "load_base",
]
WHERE = {
    "ARGuide": "decoding.guides.ar_guide",
    "Base": "models.base",
    "Budget": "decoding.schedules.budget",
    "Draw": "decoding.draw",
    "FreeCache": "decoding.caches.freecache",
    "Joint": "decoding.refine",
    "JointSampler": "models.joint",
    "Loading": "models.load",
    "Marginals": "decoding.refine",
    "Noise": "random",
    "Output": "sampling",
    "Policy": "decoding.policy",
    "Prophet": "decoding.early_rules.prophet",
    "Verified": "decoding.guides.verified",
    "decode": "decoding.decode",
    "generate": "sampling",
    "load_base": "models.load",
}
"""Modules of the names, imported when a name is first used: `dlmjoint --help` needs no torch."""


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
