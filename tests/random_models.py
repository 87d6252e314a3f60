"""Models whose every parameter and running statistic matters."""

from typing import Any

import torch
from torch import nn

UCLA: dict[str, Any] = {"num_point": 20, "num_person": 1, "graph": "graph.ucla.Graph"}
NTU: dict[str, Any] = {"num_point": 25, "num_person": 2, "graph": "graph.ntu_rgb_d.Graph"}


def randomised(model: nn.Module) -> nn.Module:
    """Give every parameter and running statistic a random value, so that each one matters."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator).to(value.dtype)
            if name.endswith("running_var"):
                value.copy_(1 + noise.abs())
            elif name.endswith("gcn1.bn.weight"):
                value.copy_(0.3 + 0.1 * noise)
            else:
                value.add_(0.1 * noise)
    return model
