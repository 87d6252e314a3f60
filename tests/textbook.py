"""The model as its equations are naively written: an oracle for tests, a base for benchmarks.

Nothing is fused: three subsets in a loop, relation convolutions before the mean over time, four
branches one after the other, the whole residual tensor (N, c, d, T - 1) in the head. Feature maps
are (N, C, T, V). Entries carry the published names, so that one state dict serves both models.
"""

import torch
from torch import Tensor, nn

CHANNELS = (64, 64, 64, 64, 128, 128, 128, 256, 256, 256)


class Subset(nn.Module):
    """CTR-GC for one subset of the adjacency."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        reduced = 8 if in_channels in (3, 9) else in_channels // 8
        self.conv1 = nn.Conv2d(in_channels, reduced, 1)
        self.conv2 = nn.Conv2d(in_channels, reduced, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv4 = nn.Conv2d(reduced, out_channels, 1)

    def forward(self, x: Tensor, adjacency: Tensor, alpha: Tensor) -> Tensor:
        phi, psi = self.conv1(x).mean(2), self.conv2(x).mean(2)
        m = torch.tanh(phi[:, :, :, None] - psi[:, :, None, :])
        topology = self.conv4(m) * alpha + adjacency
        return torch.einsum("ncuv,nctv->nctu", topology, self.conv3(x))


class GraphUnit(nn.Module):
    """Sum over the subsets, batch norm, residual, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, adjacency: Tensor) -> None:
        super().__init__()
        self.PA = nn.Parameter(adjacency.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.convs = nn.ModuleList(Subset(in_channels, out_channels) for _ in range(3))
        if in_channels == out_channels:
            self.down = nn.Sequential()
        else:
            self.down = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)
            )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        z = sum(conv(x, self.PA[k], self.alpha) for k, conv in enumerate(self.convs))
        return torch.relu(self.bn(z) + self.down(x))


class TemporalConvolution(nn.Module):
    """Convolution along time, batch norm."""

    def __init__(
        self, in_channels: int, out_channels: int, size: int, stride: int, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            (size, 1),
            stride=(stride, 1),
            padding=(dilation * (size - 1) // 2, 0),
            dilation=(dilation, 1),
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class TemporalUnit(nn.Module):
    """Four branches, concatenated."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        width = channels // 4

        def start() -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()]

        self.branches = nn.ModuleList(
            [
                nn.Sequential(*start(), TemporalConvolution(width, width, 5, stride, dilation=1)),
                nn.Sequential(*start(), TemporalConvolution(width, width, 5, stride, dilation=2)),
                nn.Sequential(
                    *start(),
                    nn.MaxPool2d((3, 1), stride=(stride, 1), padding=(1, 0)),
                    nn.BatchNorm2d(width),
                ),
                nn.Sequential(
                    nn.Conv2d(channels, width, 1, stride=(stride, 1)), nn.BatchNorm2d(width)
                ),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Block(nn.Module):
    """Graph unit, temporal unit, residual, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, adjacency: Tensor, stride: int, first: bool
    ) -> None:
        super().__init__()
        self.gcn1 = GraphUnit(in_channels, out_channels, adjacency)
        self.tcn1 = TemporalUnit(out_channels, stride)
        self.first = first
        if not first and (in_channels != out_channels or stride != 1):
            self.residual = TemporalConvolution(in_channels, out_channels, 1, stride)
        else:
            self.residual = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn1(self.gcn1(x))
        return torch.relu(y if self.first else y + self.residual(x))


class Textbook(nn.Module):
    """The whole classifier for x (N, C, T, V, M); arguments as ``model.classifier.Model``'s."""

    def __init__(
        self,
        num_class: int,
        num_person: int,
        adjacency: Tensor,
        in_channels: int = 3,
        head: str = "koopman",
    ) -> None:
        super().__init__()
        adjacency = adjacency.float()
        self.head = head
        if head == "koopman":
            self.K = nn.Parameter(torch.randn(num_class, CHANNELS[-1], CHANNELS[-1]))
        self.data_bn = nn.BatchNorm1d(num_person * in_channels * adjacency.shape[-1])
        for i, out_channels in enumerate(CHANNELS, start=1):
            stride = 2 if head == "average" and i in (5, 8) else 1
            self.add_module(f"l{i}", Block(in_channels, out_channels, adjacency, stride, i == 1))
            in_channels = out_channels
        self.fc = nn.Linear(CHANNELS[-1], num_class)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
        for i in range(1, len(CHANNELS) + 1):
            x = self.get_submodule(f"l{i}")(x)
        x = x.view(n, m, *x.shape[1:]).mean(dim=(1, 4))
        if self.head == "average":
            return self.fc(x.mean(-1))
        return plain_scores(x, self.K)


def plain_scores(x: Tensor, K: Tensor) -> Tensor:
    """Koopman scores with the whole residual tensor (N, c, d, T - 1) at once."""
    residual = torch.einsum("cde,net->ncdt", K, x[:, :, :-1]) - x[:, None, :, 1:]
    return -residual.norm(dim=2).mean(-1)
