"""What a sampler's folder says of it."""

from typing import Any

from transformers import PreTrainedConfig


class JointSamplerConfig(PreTrainedConfig):
    """Which base the sampler belongs to, and how deep it was unrolled in training."""

    model_type = "joint_sampler"

    def __init__(
        self,
        base_name: str | None = None,
        base_revision: str | None = None,
        base_fingerprint: str | None = None,
        base_config: dict[str, Any] | None = None,
        trained_depth: int | None = None,
        price_per_nat: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.base_name = base_name
        self.base_revision = base_revision
        self.base_fingerprint = base_fingerprint
        self.base_config = base_config
        self.trained_depth = trained_depth
        self.price_per_nat = price_per_nat
        super().__init__(**kwargs)
