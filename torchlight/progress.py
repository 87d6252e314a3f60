"""Where a run is, and what it has summed up on the way: what a state holds beyond tensors."""

from dataclasses import dataclass, field

import torch

from .distributed import World


@dataclass
class Position:
    """Where a run is, and what it has found so far: what a state holds beyond tensors."""

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    skipped: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Tally:
    """Sums over an epoch's training samples; they stay on the device until they are read."""

    def __init__(self, device: torch.device, values: list[float] | None = None) -> None:
        self.sums = torch.tensor(values or [0.0, 0.0, 0.0], dtype=torch.float64, device=device)

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a micro-batch with mean ``loss`` and ``logits`` (N, c)."""
        hits = (logits.argmax(dim=1) == labels).sum()
        count = torch.full_like(hits, len(labels))
        self.sums += torch.stack([loss.double() * len(labels), hits.double(), count.double()])

    def means(self, world: World) -> dict[str, float]:
        """Loss and accuracy over all ranks (a collective)."""
        loss, hits, count = world.sum_(self.sums.clone()).tolist()
        return {"loss": loss / max(count, 1), "accuracy": hits / max(count, 1)}
