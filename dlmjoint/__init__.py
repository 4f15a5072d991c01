"""dlmjoint: a trained layer that lets a frozen diffusion language model write several coherent
tokens per forward.

    base = dlmjoint.load_base("checkpoints/tiny-dream")
    sampler = dlmjoint.JointSampler.from_pretrained("checkpoints/tiny-joint")
    policy = dlmjoint.Policy(4, refine=dlmjoint.Joint(sampler))
    print(dlmjoint.generate(base, 8, policy, max_new_tokens=55).texts)

The loop everything runs through is `dlmjoint.decoding.decode.decode`.
"""

from dlmjoint.decoding.ar_guide import ARGuide
from dlmjoint.decoding.budget import Budget
from dlmjoint.decoding.decode import decode
from dlmjoint.decoding.draw import Draw
from dlmjoint.decoding.freecache import FreeCache
from dlmjoint.decoding.policy import Policy
from dlmjoint.decoding.prophet import Prophet
from dlmjoint.decoding.refine import Joint, Marginals
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
    "decode",
    "generate",
    "load_base",
]
