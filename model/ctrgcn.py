"""CTR-GCN (Chen et al., ICCV 2021): graph units, temporal branches, blocks and backbone.

Inside the backbone a feature map is (N, C, V, T): joints before time. The published code keeps
(N, C, T, V); only the weights' meaning has to agree, not the layout. With time last, the three
subsets' features come out of one matrix product already in the order in which one batched product
sums over subsets and joints (see ``GraphUnit``), and temporal convolutions run along contiguous
memory.

Module names and their order are those of published checkpoints (``l1.gcn1.convs.0.conv1.weight``).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.aggregation import NUM_SUBSET, aggregate
from model.errors import ModelError
from model.inference import FoldedBlock, FoldedGraph, FoldedTemporal, run_blocks
from model.normalization import affine, convolve_and_normalize, fold, join, normalize
from model.shares import call_on_shares, share_out

CHANNELS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)
"""Output channels of the ten published blocks."""
RELATION_REDUCTION = 8
"""C_in / R, the relation channels; raw coordinates (3, or 9 with motion) get R = 8 themselves."""
RAW_CHANNELS = (3, 9)
UNIT_NORM_SCALE = 1e-6
"""A graph unit starts as its residual: its batch norm's scale starts here."""
BRANCH_NORM_SPREAD = 0.02


class Relation(nn.Module):
    """The 1x1 convolutions of one subset: phi (conv1), psi (conv2), features (conv3), lift (conv4).

    Holds parameters under their published names; ``GraphUnit`` applies three of these at once.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        reduced = 8 if in_channels in RAW_CHANNELS else in_channels // RELATION_REDUCTION
        self.conv1 = nn.Conv2d(in_channels, reduced, 1)
        self.conv2 = nn.Conv2d(in_channels, reduced, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv4 = nn.Conv2d(reduced, out_channels, 1)


class GraphUnit(nn.Module):
    """Channel-wise topology refinement graph convolution (section 3.2), summed over three subsets.

    With m[k,r,u,v] = tanh(phi_k[r,u] - psi_k[r,v]) from features averaged over time,

        topology[n,c,u,k,v] = PA[k,u,v] + alpha * (W4_k m[n,k])[c,u,v]
        z[n,c,u,t] = sum over k, v of topology[n,c,u,k,v] * (W3_k x)[n,c,k,v,t]

    then batch norm, residual, ReLU. The convolutions before the mean over time are linear, so the
    mean is taken first. The topology is one product, [alpha W4, alpha b4, 1] [m, 1, PA], and is
    never kept (see ``model.aggregation``).

    Args:
        adjacency: float (3, V, V), where the learnt adjacency starts.
        adaptive: learn the adjacency; otherwise it is a constant and no entry of the checkpoint.
        recompute: save memory in training at the cost of time (see ``model.aggregation``).
    """

    PA: Tensor
    convs: Any  # a ModuleList of Relation; torch types its items as plain modules

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
        self.convs = nn.ModuleList(Relation(in_channels, out_channels) for _ in range(NUM_SUBSET))
        self.down: Any = None
        if in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1)
            self.down = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.bn = nn.BatchNorm2d(out_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init_convolution(module)
        nn.init.constant_(self.bn.weight, UNIT_NORM_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, V, T) to (N, C_out, V, T)."""
        rows = x.permute(0, 2, 3, 1)  # torch sums these, which lie in this order, 20 times as fast
        relations = self._relations(rows.sum(2) / x.shape[-1])
        weight, bias, lift, shift = self._weights()
        # The bias of the features, summed by the topology, is the same for all frames.
        offset = torch.einsum("kcr,nkru->ncu", bias.unsqueeze(-1) * lift, relations.sum(-2))
        offset = offset + shift.unsqueeze(-1)
        z = aggregate(x, weight, lift, relations, offset, recompute=self.recompute)
        if self.training:
            return normalize([z], [self.bn], residual=self._residual(x), relu=True)[0]
        return join([z], self._residual(x))

    def fold(self) -> FoldedGraph:
        """Return the weights for evaluation."""
        weight, bias, lift, shift = self._weights()
        relation, relation_bias = self._relation()
        residual = None
        if self.down is not None:
            conv, bn = self.down
            residual, residual_bias = fold(conv.weight.flatten(1), conv.bias, [bn])
            shift = shift + residual_bias
        return FoldedGraph(
            features=weight,
            relation=relation,
            relation_bias=relation_bias,
            lift=lift,
            features_bias=(bias.unsqueeze(-1) * lift).transpose(0, 1).flatten(1),
            bias=shift,
            adjacency=self.PA.transpose(1, 2),
            residual=residual,
        )

    def _residual(self, x: Tensor) -> Tensor:
        """Return the unit's input with as many channels as its output."""
        if self.down is None:
            return x
        conv, bn = self.down
        return convolve_and_normalize(x, conv.weight, conv.bias, [bn])

    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weights (3C, C_in), biases (3, C) and lift (3, C, R + 2) of the three subsets, and
        a shift (C,).

        The lift is [alpha W4, alpha b4, 1]. In evaluation the batch norm is folded into it, the
        smallest of the factors; what the norm adds is the shift.
        """
        weight = torch.stack([conv.conv3.weight for conv in self.convs], dim=1).flatten(2)
        bias = torch.stack([conv.conv3.bias for conv in self.convs])
        w4 = self.alpha * torch.stack([conv.conv4.weight for conv in self.convs]).flatten(2)
        b4 = self.alpha * torch.stack([conv.conv4.bias for conv in self.convs]).unsqueeze(-1)
        lift = torch.cat([w4, b4, torch.ones_like(b4)], dim=-1)
        if self.training:
            return weight.flatten(0, 1), bias, lift, torch.zeros_like(bias[0])
        scale, shift = affine([self.bn])
        return weight.flatten(0, 1), bias, lift * scale.unsqueeze(-1), shift

    def _relation(self) -> tuple[Tensor, Tensor]:
        """Return weights (6R, C_in) and biases (6R,) of phi and psi of the three subsets."""
        parts = [conv.conv1 for conv in self.convs] + [conv.conv2 for conv in self.convs]
        weight = torch.cat([part.weight for part in parts]).flatten(1)
        return weight, torch.cat([part.bias for part in parts])

    def _relations(self, mean: Tensor) -> Tensor:
        """Return [m, 1, PA] of time-averaged features (N, V, C_in), (N, 3, R + 2, V, V).

        The last two axes are (v, u), so that the lift times this is the topology, in one product.
        """
        both = F.linear(mean, *self._relation()).transpose(1, 2).unflatten(1, (2, NUM_SUBSET, -1))
        phi, psi = both.unbind(1)
        m = torch.tanh(phi.unsqueeze(-2) - psi.unsqueeze(-1))
        n, k, _, v, _ = m.shape
        adjacency = self.PA.transpose(1, 2).to(m.dtype).expand(n, 1, k, v, v).transpose(1, 2)
        return torch.cat([m, torch.ones_like(adjacency), adjacency], dim=2)


class TemporalConvolution(nn.Module):
    """Convolution along time and batch norm; the published residual of a block, and a branch's end.

    Kernels are stored (C_out, C_in, size, 1) as published and used as (C_out, C_in, 1, size).
    """

    def __init__(
        self, in_channels: int, out_channels: int, size: int, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv: Any = nn.Conv2d(in_channels, out_channels, (size, 1))
        self.bn = nn.BatchNorm2d(out_channels)
        padding = dilation * (size - 1) // 2
        self.options: dict[str, Any] = {
            "stride": (1, stride),
            "padding": (0, padding),
            "dilation": (1, dilation),
        }

    def convolve(self, x: Tensor) -> Tensor:
        """Map (N, C_in, V, T) to (N, C_out, V, ceil(T / stride)), without bias and batch norm."""
        return F.conv2d(x, self._kernel(), **self.options)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, V, T) to (N, C_out, V, ceil(T / stride))."""
        bias = self.conv.bias
        return convolve_and_normalize(x, self._kernel(), bias, [self.bn], **self.options)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Return kernel (C_out, C_in, 1, size) and bias (C_out,) for evaluation."""
        return fold(self._kernel(), self.conv.bias, [self.bn])

    def _kernel(self) -> Tensor:
        return self.conv.weight.transpose(-1, -2)


class TemporalUnit(nn.Module):
    """Four branches of C/4 channels: dilations 1 and 2, max pool, and a plain 1x1 convolution.

    The first three branches' 1x1 convolutions read the same input, so they are one product with one
    batch norm, and so are the batch norms at the four ends. In the fourth branch the 1x1
    convolution itself takes the stride.
    """

    branches: Any  # a ModuleList of Sequential; torch types its items as plain modules

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        width = channels // 4
        self.width = width
        self.stride = stride
        self.branches = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(channels, width, 1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    TemporalConvolution(width, width, 5, stride=stride, dilation=dilation),
                )
                for dilation in (1, 2)
            ]
            + [
                nn.Sequential(
                    nn.Conv2d(channels, width, 1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.MaxPool2d((1, 3), stride=(1, stride), padding=(0, 1)),
                    nn.BatchNorm2d(width),
                ),
                nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width)),
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init_convolution(module)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, BRANCH_NORM_SPREAD)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map (N, C, V, T) to ReLU(branches + residual), both (N, C, V, ceil(T / stride)).

        Residual and ReLU are the block's; they are taken along in one pass with the batch norms.
        """
        first, second, pooled, plain = self.branches
        last, stride = plain[0], (1, self.stride)
        weight, bias, norms = self._reduction()
        if self.training:
            y = F.conv2d(x, weight)
            a, b, c = normalize([y], norms, biases=bias, relu=True, pieces=3)
            d = F.conv2d(x, last.weight, stride=stride)
            ends = [first[3].convolve(a), second[3].convolve(b), pooled[3](c), d]
            norms = [first[3].bn, second[3].bn, pooled[4], plain[1]]
            own = [first[3].conv.bias, second[3].conv.bias, torch.zeros_like(last.bias), last.bias]
            return normalize(ends, norms, biases=torch.cat(own), residual=residual, relu=True)[0]
        y = convolve_and_normalize(x, weight, bias, norms)
        a, b, c = (F.relu(part) for part in y.chunk(3, dim=1))
        d = convolve_and_normalize(x, last.weight, last.bias, [plain[1]], stride=stride)
        (c,) = normalize([pooled[3](c)], [pooled[4]])
        return join([first[3](a), second[3](b), c, d], residual)

    def fold(
        self, *, identity: bool, residual: Tensor | None, residual_bias: Tensor
    ) -> FoldedTemporal:
        """Return the weights for evaluation, those of the block's residual among them."""
        first, second, pooled, plain = self.branches
        weight, bias, norms = self._reduction()
        reduce, reduce_bias = fold(weight.flatten(1), bias, norms)
        ends = [first[3].fold(), second[3].fold()]
        pool_scale, pool_bias = affine([pooled[4]])
        last, last_bias = fold(plain[0].weight.flatten(1), plain[0].bias, [plain[1]])
        biases = [bias for _, bias in ends] + [pool_bias, last_bias]
        *kernel_biases, pool_bias, last_bias = (
            own + other for own, other in zip(biases, residual_bias.split(self.width), strict=True)
        )
        return FoldedTemporal(
            reduce=reduce,
            reduce_bias=reduce_bias,
            kernels=tuple(kernel for kernel, _ in ends),
            kernel_biases=tuple(kernel_biases),
            dilations=tuple(branch[3].options["dilation"][1] for branch in (first, second)),
            pool_scale=pool_scale,
            pool_bias=pool_bias,
            plain=last,
            plain_bias=last_bias,
            stride=self.stride,
            identity=identity,
            residual=residual,
        )

    def _reduction(self) -> tuple[Tensor, Tensor, list[nn.BatchNorm2d]]:
        """Return the first three branches' 1x1 convolutions as one, and their norms."""
        reduced = self.branches[:3]
        weight = torch.cat([branch[0].weight for branch in reduced])
        bias = torch.cat([branch[0].bias for branch in reduced])
        return weight, bias, [branch[1] for branch in reduced]


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
        """Map (N, C_in, V, T) to (N, C_out, V, ceil(T / stride))."""
        return self.tcn1(self.gcn1(x), None if self.residual is None else self.residual(x))

    def fold(self) -> FoldedBlock:
        """Return the weights for evaluation."""
        graph = self.gcn1.fold()
        residual, bias = None, torch.zeros_like(graph.bias)
        if isinstance(self.residual, TemporalConvolution):
            kernel, bias = self.residual.fold()
            residual = kernel.flatten(1)
        identity = isinstance(self.residual, nn.Identity)
        temporal = self.tcn1.fold(identity=identity, residual=residual, residual_bias=bias)
        return FoldedBlock(graph, temporal)


class Backbone(nn.Module):
    """Batch norm over M*V*C of the input, then one block for each entry of ``channels``.

    Args:
        adjacency: float (3, V, V).
        num_person: M.
        in_channels: C of the input.
        channels: output channels of the blocks, multiples of 8.
        strides: stride in time of the blocks.
        adaptive: learn the adjacency.
        recompute: save memory in training at the cost of time (see ``model.aggregation``).
    """

    def __init__(
        self,
        adjacency: np.ndarray,
        *,
        num_person: int,
        in_channels: int = 3,
        channels: Sequence[int] = CHANNELS,
        strides: Sequence[int],
        adaptive: bool = True,
        recompute: bool = False,
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
        self.block_names = [f"l{i}" for i in range(1, len(channels) + 1)]
        sources = [in_channels, *channels[:-1]]
        rows = zip(self.block_names, sources, channels, strides, strict=True)
        for name, source, target, stride in rows:
            block = Block(
                source,
                target,
                adjacency,
                stride=stride,
                residual=name != "l1",
                adaptive=adaptive,
                recompute=recompute,
            )
            self.add_module(name, block)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, C, T, V, M), or (N, T, V*C) with C fastest and M = 1, to (N, M, C', V, T').

        Raises:
            ModelError: the input has other dimensions, channels, joints or persons.
        """
        shares = self._feature_shares(x)
        return shares[0] if len(shares) == 1 else torch.cat(shares)

    def pooled(self, x: Tensor) -> Tensor:
        """Return the features averaged over joints and persons, (N, C', T')."""
        return torch.cat(self._feature_shares(x, pool=True))

    def _feature_shares(self, x: Tensor, *, pool: bool = False) -> list[Tensor]:
        """Return features, pooled or not, in shares of the batch (see ``model.shares``)."""
        x = self._checked(x)
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).transpose(2, 3)
        blocks: list[Any] = [self.get_submodule(name) for name in self.block_names]
        whole = torch.compiler.is_compiling() or _hooked(blocks)
        shares = [
            share.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            for share in ([x] if whole else share_out(x))
        ]
        if whole or self.training or torch.is_grad_enabled() or x.device.type != "cpu":
            shares = call_on_shares(nn.Sequential(*blocks), shares)
            if pool:  # as rows: torch sums these, which lie in this order, 20 times as fast
                shares = [share.permute(0, 2, 3, 1).sum(1).transpose(1, 2) / v for share in shares]
        else:
            half = torch.is_autocast_enabled("cpu")
            dtype = torch.get_autocast_dtype("cpu") if half else x.dtype
            folded = [block.fold().to(dtype) for block in blocks]
            shares = [run_blocks(folded, *shares, pool=pool)]
        shares = [share.unflatten(0, (-1, m)) for share in shares]
        return [share.mean(1) for share in shares] if pool else shares

    def _checked(self, x: Tensor) -> Tensor:
        """Return the input as (N, C, T, V, M)."""
        c, v, m = self.in_channels, self.num_point, self.num_person
        expected = f"(N, {c}, T, {v}, {m})" + (f" or (N, T, {v * c})" if m == 1 else "")
        if x.dim() == 3 and m == 1 and x.shape[2] == v * c and x.numel():
            return x.unflatten(2, (v, c)).permute(0, 3, 1, 2).unsqueeze(-1)
        if x.dim() == 5 and (x.shape[1], *x.shape[3:]) == (c, v, m) and x.numel():
            return x
        raise ModelError(
            f"model: expected input {expected} = (batch, channels, frames, joints, persons),"
            f" got {tuple(x.shape)}"
        )


def _hooked(blocks: Sequence[nn.Module]) -> bool:
    """Whether somebody listens inside: hooks are for modules called here, with the whole batch."""
    modules = [module for block in blocks for module in block.modules()]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for module in modules for name in hooks) or any(
        parameter._backward_hooks for module in modules for parameter in module.parameters(False)
    )


def _init_convolution(conv: nn.Conv2d) -> None:
    """Kaiming normal over the fan out, zero bias."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
