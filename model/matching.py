"""Nearest-exemplar matching of feature sequences, for classes known by a few exemplars each.

Legend: N queries, c classes, k exemplars a class, d features, T frames. Distances are (N, c),
smaller is nearer; the nearest class wins, the lower index where two are equally near.

* ``dmd``: a class is a linear dynamic, fitted by least squares to its exemplars jointly (dynamic
  mode decomposition; Wang et al., Neural Koopman Pooling, CVPR 2023, one-shot section),
  K = X_2 pinv(X_1). The distance is the mean over t of || K x_t - x_(t+1) ||.
* ``l2``: a class is the mean of its exemplars over time and exemplars; the distance is that of
  the query's mean over time.
* ``cosine``: the same means; the distance is 1 - cosine similarity.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from model.errors import ModelError
from model.koopman import CLASS_BLOCK, fit_transition, koopman_scores

Match = Literal["dmd", "l2", "cosine"]
MATCHES: tuple[Match, ...] = get_args(Match)
RCOND = 0.9
"""Published cut-off: one to three of an exemplar's directions remain."""
RESIDUAL_ELEMENTS = 1 << 25
"""Most residuals held at once: 128 MiB in float32, twice that with the temporary."""


class Matcher:
    """Classes as their exemplars describe them.

    Args:
        exemplars: floating (c, k, d, T); T >= 2 for dmd.
        match: ``dmd``, ``l2`` or ``cosine``.
        rcond: for dmd, singular values at or below ``rcond`` times the largest are dropped.

    Raises:
        ModelError: another shape, an unknown match, rcond not in [0, 1); features not finite.
    """

    def __init__(self, exemplars: Tensor, match: Match = "dmd", rcond: float = RCOND) -> None:
        if exemplars.dim() != 4 or 0 in exemplars.shape:
            raise ModelError(f"matching: expected (c, k, d, T), got {tuple(exemplars.shape)}")
        check_matching(match, rcond)
        self.match = match
        count, _, width, _ = exemplars.shape
        shape = (count, width, width) if match == "dmd" else (count, width)
        dtype = torch.promote_types(exemplars.dtype, torch.float32)
        self._template = exemplars.new_empty(shape, dtype=dtype)
        # A few classes at a time: a fit takes several times the memory of what it gives.
        blocks = exemplars.split(CLASS_BLOCK)
        for fitted, block in zip(self._template.split(CLASS_BLOCK), blocks, strict=True):
            fitted.copy_(_template(block, match, rcond))

    def distances(self, x: Tensor) -> Tensor:
        """Distances (N, c) of queries x (N, d, T) to every class, in bounded memory.

        Raises:
            ModelError: x does not fit the exemplars.
        """
        width = self._template.shape[-1]
        if x.dim() != 3 or x.shape[1] != width:
            raise ModelError(f"matching: expected x (N, {width}, T), got {tuple(x.shape)}")
        if self.match == "dmd":
            rows = max(1, RESIDUAL_ELEMENTS // (CLASS_BLOCK * x.shape[1] * x.shape[2]))
            return torch.cat([-koopman_scores(part, self._template) for part in x.split(rows)])
        with torch.autocast(x.device.type, enabled=False):
            means = x.to(self._template.dtype).mean(dim=-1)
            if self.match == "l2":
                return torch.cdist(means, self._template, compute_mode=_PLAIN_SUBTRACTION)
            return 1 - nn.functional.normalize(means) @ nn.functional.normalize(self._template).T


# Not by way of matrix products, whose cancellation costs half of the digits.
_PLAIN_SUBTRACTION = "donot_use_mm_for_euclid_dist"


def check_matching(match: str, rcond: float) -> None:
    """Refuse an unknown match or an impossible cut-off.

    Raises:
        ModelError: says what was given and what is allowed.
    """
    if match not in MATCHES:
        raise ModelError(f"matching: {match!r} is not one of {', '.join(MATCHES)}")
    if not 0 <= rcond < 1:
        raise ModelError(f"matching: rcond must be at least 0 and below 1, got {rcond}")


def _template(exemplars: Tensor, match: Match, rcond: float) -> Tensor:
    """What queries are compared with: operators (c, d, d), or means (c, d).

    In double precision whatever the features are: a singular value near the cut-off must not
    change sides with the order of summation.
    """
    exact = exemplars.double()
    if match != "dmd":
        return exact.mean(dim=(1, 3))
    return fit_transition(_side_by_side(exact[..., :-1]), _side_by_side(exact[..., 1:]), rcond)


def _side_by_side(x: Tensor) -> Tensor:
    """Frames of a class's exemplars in one row: (c, k, d, T) to (c, d, k * T)."""
    return x.movedim(1, 2).flatten(2)
