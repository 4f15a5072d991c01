"""The norm of transformers' layers as one operation."""

from torch import Tensor, nn

from dlmjoint.models.parts.cast import cast


class FusedRMSNorm(nn.RMSNorm):
    """What transformers' RMSNorm computes, in one kernel where there is one.

    In float32 the numbers are the same; in bfloat16 the weight is multiplied before rounding, and not
    after. Weights in another type than the input's (mixed precision) have no such kernel: the input is
    brought to theirs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalised over the last axis, in the weight's dtype."""
        return super().forward(cast(x, self.weight.dtype))


def fuse_norms(module: nn.Module) -> nn.Module:
    """The same module with transformers' norms replaced, under the same weight names."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm") and not isinstance(child, nn.RMSNorm):
                weight, eps = child.get_parameter("weight"), child.variance_epsilon
                assert isinstance(eps, float)
                fused = FusedRMSNorm(weight.shape, eps=eps)
                fused.weight = weight
                setattr(parent, name, fused)
    return module
