"""The learning rate as a pure function of the epoch."""

from collections.abc import Sequence


def learning_rate(
    epoch: int, *, base_lr: float, step: Sequence[int], decay: float, warm_up_epoch: int
) -> float:
    """Linear warm-up, then a factor ``decay`` at each epoch in ``step``.

    ``base_lr * (epoch + 1) / warm_up_epoch`` for epochs below ``warm_up_epoch``, and
    ``base_lr * decay ** #{s in step: s <= epoch}`` from there on (epochs count from 0).
    """
    if epoch < warm_up_epoch:
        return base_lr * (epoch + 1) / warm_up_epoch
    return base_lr * decay ** sum(epoch >= s for s in step)
