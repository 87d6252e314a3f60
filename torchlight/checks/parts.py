"""Can the optimiser train here? Some need what the loop does not give, such as a closure."""

import torch
from torch import nn

from ..components import Components, make_optimizer
from ..config import Config
from ..errors import UserError, printable


def check_optimizer(config: Config, components: Components | None) -> None:
    """Take a step with nothing."""
    if components is None:
        return
    target, weight = components.optimizer, nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    optimizer = make_optimizer(config, target, [weight])
    try:
        optimizer.step()
    except AssertionError:  # it is for another device than this trial's
        return
    except Exception as error:
        name = config.named("optimizer")
        raise UserError(f"{name}: {target.name} cannot train here ({printable(error)})") from error
