"""CTR-GCN (Chen et al., ICCV 2021): graph units, temporal units, blocks and backbone.

Shapes: N batch (samples, or samples times persons), C channels, R relation channels, T frames,
V joints, of which u takes from v. Feature maps are (N, C, T, V). Module names and their order are
those of published checkpoints (``l1.gcn1.convs.0.conv1.weight``).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.errors import ModelError

CHANNELS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)
"""Output channels of the ten published blocks."""
RELATION_REDUCTION = 8
"""C_in / R; raw coordinates (3, or 9 with motion) get R = 8 themselves, and so does what has fewer
than 8 channels, such as poses in the image plane."""
RAW_CHANNELS = (3, 9)
UNIT_NORM_SCALE = 1e-6
"""A graph unit starts as its residual: its batch norm's scale starts here."""
BRANCH_NORM_SPREAD = 0.02


class RefinedGraphConvolution(nn.Module):
    """Channel-wise topology refinement for one subset of the adjacency (section 3.2).

    conv1 and conv2 are the paper's phi and psi, conv3 transforms features, conv4 lifts relations.
    phi and psi are linear, so that the mean over time is taken before them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        raw = in_channels in RAW_CHANNELS or in_channels < RELATION_REDUCTION
        reduced = 8 if raw else in_channels // RELATION_REDUCTION
        self.conv1 = nn.Conv2d(in_channels, reduced, 1)
        self.conv2 = nn.Conv2d(in_channels, reduced, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv4 = nn.Conv2d(reduced, out_channels, 1)

    def forward(self, x: Tensor, adjacency: Tensor, alpha: Tensor) -> Tensor:
        """Map (N, C_in, T, V), adjacency (V, V) and alpha (1,) to (N, C_out, T, V)."""
        mean = x.mean(2, keepdim=True)
        phi, psi = self.conv1(mean).squeeze(2), self.conv2(mean).squeeze(2)
        m = torch.tanh(phi.unsqueeze(-1) - psi.unsqueeze(-2))  # (N, R, u, v)
        topology = alpha * self.conv4(m) + adjacency
        return torch.einsum("ncuv,nctv->nctu", topology, self.conv3(x))


class GraphUnit(nn.Module):
    """Sum over the three subsets, batch norm, residual, ReLU.

    Args:
        adjacency: float (3, V, V), where the learnt adjacency starts.
        adaptive: learn the adjacency; otherwise it is a constant and no entry of the checkpoint.
        recompute: compute the three subsets again for the gradient instead of keeping them.
    """

    PA: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: np.ndarray,
        *,
        adaptive: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        start = torch.tensor(adjacency, dtype=torch.float32)
        if adaptive:
            self.PA = nn.Parameter(start)
        else:
            self.register_buffer("PA", start, persistent=False)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.convs = nn.ModuleList(
            RefinedGraphConvolution(in_channels, out_channels) for _ in adjacency
        )
        self.down: nn.Module = nn.Identity()
        if in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1)
            self.down = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.bn = nn.BatchNorm2d(out_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init_convolution(module)
        nn.init.constant_(self.bn.weight, UNIT_NORM_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, T, V) to (N, C_out, T, V)."""
        if self.recompute and self.training:
            z = checkpoint(self._sum_of_subsets, x, use_reentrant=False)
        else:
            z = self._sum_of_subsets(x)
        return torch.relu(self.bn(z) + self.down(x))

    def _sum_of_subsets(self, x: Tensor) -> Tensor:
        first, second, third = (
            conv(x, adjacency, self.alpha)
            for conv, adjacency in zip(self.convs, self.PA, strict=True)
        )
        return first + second + third


class TemporalConvolution(nn.Module):
    """Convolution along time and batch norm; the residual of a block, and a branch's end."""

    def __init__(
        self, in_channels: int, out_channels: int, size: int, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (size - 1) // 2
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            (size, 1),
            stride=(stride, 1),
            padding=(padding, 0),
            dilation=(dilation, 1),
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, T, V) to (N, C_out, ceil(T / stride), V)."""
        return self.bn(self.conv(x))


class TemporalUnit(nn.Module):
    """Four branches of C/4 channels: dilations 1 and 2, max pool, and a plain 1x1 convolution."""

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        width = channels // 4

        def start() -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()]

        def convolution(dilation: int) -> nn.Module:
            return TemporalConvolution(width, width, 5, stride=stride, dilation=dilation)

        pool = nn.MaxPool2d((3, 1), stride=(stride, 1), padding=(1, 0))
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*start(), convolution(dilation=1)),
                nn.Sequential(*start(), convolution(dilation=2)),
                nn.Sequential(*start(), pool, nn.BatchNorm2d(width)),
                nn.Sequential(
                    nn.Conv2d(channels, width, 1, stride=(stride, 1)), nn.BatchNorm2d(width)
                ),
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init_convolution(module)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, BRANCH_NORM_SPREAD)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, V) to (N, C, ceil(T / stride), V)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Block(nn.Module):
    """ReLU(temporal(graph(x)) + residual(x)).

    Args:
        residual: False in the first block. Otherwise identity, or a 1x1 temporal convolution with
            batch norm where channels or stride change.
        unit: options of the graph unit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: np.ndarray,
        *,
        stride: int = 1,
        residual: bool = True,
        **unit: bool,
    ) -> None:
        super().__init__()
        self.gcn1 = GraphUnit(in_channels, out_channels, adjacency, **unit)
        self.tcn1 = TemporalUnit(out_channels, stride=stride)
        self.residual: nn.Module | None = None
        if residual and in_channels == out_channels and stride == 1:
            self.residual = nn.Identity()
        elif residual:
            self.residual = TemporalConvolution(in_channels, out_channels, 1, stride=stride)
            _init_convolution(self.residual.conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, T, V) to (N, C_out, ceil(T / stride), V)."""
        y = self.tcn1(self.gcn1(x))
        return torch.relu(y if self.residual is None else y + self.residual(x))


class Backbone(nn.Module):
    """Batch norm over M*V*C of the input, then one block for each entry of ``channels``.

    Args:
        adjacency: float (3, V, V).
        num_person: M.
        in_channels: C of the input.
        channels: output channels of the blocks, multiples of 8.
        strides: stride in time of the blocks.
        unit: options of the graph units.
    """

    def __init__(
        self,
        adjacency: np.ndarray,
        *,
        num_person: int,
        in_channels: int = 3,
        channels: Sequence[int] = CHANNELS,
        strides: Sequence[int],
        **unit: bool,
    ) -> None:
        super().__init__()
        if len(strides) != len(channels):
            raise ModelError(f"model: expected {len(channels)} strides, got {len(strides)}")
        if not channels or any(c < 8 or c % 8 for c in channels):
            raise ModelError(f"model: channels must be multiples of 8, got {list(channels)}")
        if any(s < 1 for s in strides):
            raise ModelError(f"model: strides must be 1 or more, got {list(strides)}")
        self.num_point = adjacency.shape[-1]
        self.num_person = num_person
        self.in_channels = in_channels
        self.data_bn = nn.BatchNorm1d(num_person * in_channels * self.num_point)
        sources = [in_channels, *channels[:-1]]
        rows = enumerate(zip(sources, channels, strides, strict=True), start=1)
        for i, (source, target, stride) in rows:
            block = Block(source, target, adjacency, stride=stride, residual=i > 1, **unit)
            self.add_module(f"l{i}", block)
        self.num_block = len(channels)

    @property
    def blocks(self) -> list[Any]:
        """The blocks, first to last."""
        return [self.get_submodule(f"l{i}") for i in range(1, self.num_block + 1)]

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, C, T, V, M), or (N, T, V*C) with C fastest and M = 1, to (N, M, C', T', V).

        Raises:
            ModelError: the input has other dimensions, channels, joints or persons.
        """
        x = self.normalized(x)
        persons = x.shape[1]
        x = x.flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return x.unflatten(0, (-1, persons))

    def pooled(self, x: Tensor) -> Tensor:
        """Return the features averaged over joints and persons, (N, C', T')."""
        return self.forward_features(x).mean((1, 4))

    def normalized(self, x: Tensor) -> Tensor:
        """Return the input, batch-normalised, as (N, M, C, T, V)."""
        x = self._checked(x)
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)
        return self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2)

    def _checked(self, x: Tensor) -> Tensor:
        """Return the input as (N, C, T, V, M)."""
        c, v, m = self.in_channels, self.num_point, self.num_person
        if x.dim() == 3 and m == 1 and x.shape[2] == v * c and x.numel():
            return x.unflatten(2, (v, c)).permute(0, 3, 1, 2).unsqueeze(-1)
        if x.dim() == 5 and (x.shape[1], *x.shape[3:]) == (c, v, m) and x.numel():
            return x
        expected = f"(N, {c}, T, {v}, {m})" + (f" or (N, T, {v * c})" if m == 1 else "")
        raise ModelError(
            f"model: expected input {expected} = "
            f"(batch, in_channels, frames, num_point, num_person), got {tuple(x.shape)}"
        )


def _init_convolution(conv: nn.Conv2d) -> None:
    """Kaiming normal over the fan out, zero bias."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
