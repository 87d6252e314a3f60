"""Koopman operators: score, least-squares fit, spectrum, eigenvalue normalisation.

A Koopman operator K (d, d) advances pooled features by one frame: x[:, t + 1] ~ K x[:, t]
(Wang et al., Neural Koopman Pooling, CVPR 2023). Its eigenvalues say how its modes grow and turn.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.errors import ModelError

CLASS_BLOCK = 8
"""Classes scored at a time: their residuals, about a megabyte a class, stay near the caches."""
BADLY_CONDITIONED = 1e8
"""Condition number of eigenvectors beyond which rounding in float64 (1e-16) reaches the digits
that float32 (1e-8) keeps."""


def koopman_scores(x: Tensor, K: Tensor) -> Tensor:
    """Score sequences by how well each class's linear dynamics predict the next frame.

        scores[n, c] = - mean over t of || K[c] x[n, :, t] - x[n, :, t + 1] ||_2

    Computed in float32 or float64 also under autocast: the logits are small differences of large
    norms.

    Args:
        x: (N, d, T) with T >= 2.
        K: (c, d, d).

    Returns:
        (N, c), not above zero; the gradient at a zero residual is zero.

    Raises:
        ModelError: shapes that do not fit, or fewer than two frames.
    """
    if x.dim() != 3 or K.dim() != 3 or K.shape[1:] != (x.shape[1], x.shape[1]):
        raise ModelError(
            f"koopman: expected x (N, d, T) and K (c, d, d), got {tuple(x.shape)} and"
            f" {tuple(K.shape)}"
        )
    _check_frames(x)
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, K.dtype), torch.float32)
        frames = x.to(dtype).transpose(1, 2)
        distances = _Distances.apply(
            frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1), K.to(dtype)
        )
        return -distances.unflatten(0, (len(x), -1)).mean(1)


class _Distances(torch.autograd.Function):
    """Distances D[p, c] = || K[c] x[p] - y[p] || of rows x, y (P, d), in blocks of classes.

    The residuals r[p, c] = K[c] x[p] - y[p] are (P, c, d): too many to keep, so that they are
    computed again for the gradient. With s[p, c] = dD[p, c] / D[p, c], and 0 where D is 0,

        dK[c] = sum over p of s[p,c] r[p,c] x[p]^T
        dx[p] = sum over c of s[p,c] K[c]^T r[p,c],   dy[p] = - sum over c of s[p,c] r[p,c]
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, K: Tensor) -> Tensor:
        blocks = (
            torch.linalg.vector_norm(_residuals(x, y, k), dim=2) for k in K.split(CLASS_BLOCK)
        )
        distances = torch.cat(list(blocks), dim=1)
        ctx.save_for_backward(x, y, K, distances)
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, K, distances = ctx.saved_tensors
        scale = torch.where(distances > 0, gradients[0] / distances, 0.0)
        dx, dy = torch.zeros_like(x), torch.zeros_like(y)
        dK = torch.empty_like(K) if ctx.needs_input_grad[2] else None
        for start in range(0, len(K), CLASS_BLOCK):
            block = slice(start, start + CLASS_BLOCK)
            weighted = _residuals(x, y, K[block]).mul_(scale[:, block].unsqueeze(-1))
            dy -= weighted.sum(1)
            flat = weighted.flatten(1)
            if ctx.needs_input_grad[0]:
                dx.addmm_(flat, K[block].flatten(0, 1))
            if dK is not None:
                dK[block] = (flat.t() @ x).view(dK[block].shape)
        return dx, dy, dK


def _residuals(x: Tensor, y: Tensor, K: Tensor) -> Tensor:
    """Return K[c] x[p] - y[p] of a block of classes, (P, c, d)."""
    predicted = x @ K.flatten(0, 1).t()
    return predicted.unflatten(1, K.shape[:2]).sub_(y.unsqueeze(1))


def fit_operator(x: Tensor, rcond: float | None = None) -> Tensor:
    """Fit the operator of a sequence by least squares: K = X_2 pinv(X_1).

    X_1 holds all frames but the last, X_2 all but the first.

    Args:
        x: floating (..., d, T) with T >= 2; float64 gives a float64 fit.
        rcond: singular values of X_1 at or below ``rcond`` times the largest are dropped; by
            default those at rounding level. One-shot matching uses 0.9: it keeps the one or two
            strongest directions.

    Returns:
        (..., d, d).

    Raises:
        ModelError: fewer than two frames, or values that are not finite.
    """
    if x.dim() < 2:
        raise ModelError(f"koopman: expected a sequence (..., d, T), got {tuple(x.shape)}")
    _check_frames(x)
    return fit_transition(x[..., :-1], x[..., 1:], rcond)


def fit_transition(before: Tensor, after: Tensor, rcond: float | None = None) -> Tensor:
    """Fit K to pairs of states by least squares: K = after pinv(before).

    The pairs may come from several sequences of one dynamic; ``fit_operator`` takes those of one.

    Args:
        before, after: floating (..., d, P), column p of ``after`` following that of ``before``.
        rcond: as for ``fit_operator``.

    Returns:
        (..., d, d).

    Raises:
        ModelError: values that are not finite.
    """
    if not (torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise ModelError("koopman: cannot fit an operator to features that are not finite")
    return after @ torch.linalg.pinv(before, rtol=rcond)


def spectrum(K: Tensor) -> Tensor:
    """Return the eigenvalues of real K (..., d, d) as complex128 (..., d), largest modulus first.

    Raises:
        ModelError: K is not square or not finite.
    """
    _check_operators(K)
    eigenvalues = torch.linalg.eigvals(K.detach().double())
    return eigenvalues.gather(-1, _descending(eigenvalues))


@dataclass(frozen=True)
class NormalizationReport:
    """What eigenvalue normalisation did, and how exactly; one entry a class.

    Attributes:
        before: complex128 (c, d), eigenvalues of K, largest modulus first.
        after: complex128 (c, d), eigenvalues of the rebuilt K as it is returned.
        changed: int64 (c,), how many eigenvalues were given a new modulus.
        condition: float64 (c,), 2-norm condition number of the eigenvector matrix.
        imaginary: float64 (c,), norm of the imaginary part that was dropped over the norm of the
            rebuilt matrix. Rounding noise, unless a conjugate pair was split.
        residual: float64 (c,), largest || K' v - l' v || over the norm of K', for the unit
            eigenvectors v and their intended eigenvalues l'.
        modulus_error: float64 (c,), largest difference between the moduli achieved and intended,
            both sorted.
    """

    before: Tensor
    after: Tensor
    changed: Tensor
    condition: Tensor
    imaginary: Tensor
    residual: Tensor
    modulus_error: Tensor

    @property
    def radius_before(self) -> Tensor:
        """Spectral radius of each class before, float64 (c,)."""
        return self.before.abs().amax(-1)

    @property
    def radius_after(self) -> Tensor:
        """Spectral radius of each class after, float64 (c,)."""
        return self.after.abs().amax(-1)

    def summary(self) -> list[str]:
        """Return lines for people: spectral radii, and the worst class's figures."""
        lines = []
        for name, radius in (("before", self.radius_before), ("after", self.radius_after)):
            low, middle, high = (float(radius.quantile(q)) for q in (0.0, 0.5, 1.0))
            lines.append(
                f"spectral radius {name}: min {low:.4f}, median {middle:.4f}, max {high:.4f}"
            )
        lines.append(
            f"condition number of the eigenvectors up to {self.condition.max():.1e},"
            f" imaginary part dropped up to {self.imaginary.max():.1e},"
            f" residual up to {self.residual.max():.1e},"
            f" moduli off by up to {self.modulus_error.max():.1e}"
        )
        return lines

    def warnings(self) -> list[str]:
        """Return one line for each class whose eigenvectors are badly conditioned."""
        return [
            f"class {c}: eigenvectors are badly conditioned ({self.condition[c]:.1e});"
            f" the new moduli are off by up to {self.modulus_error[c]:.1e}"
            for c in torch.nonzero(self.condition > BADLY_CONDITIONED).flatten().tolist()
        ]


def normalize_eigenvalues(
    K: Tensor,
    rank: int = 32,
    power: float = 0.25,
    split_pairs: bool = False,
    *,
    progress: Callable[[range], Iterable[int]] = iter,
) -> tuple[Tensor, NormalizationReport]:
    """Give the ``rank`` largest eigenvalues of each operator the modulus r^power at their angle.

    With K = V diag(l) V^-1, rows u_i of V^-1, and the chosen i,

        K' = K + sum over chosen i of (l'_i - l_i) v_i u_i,   l'_i = l_i |l_i|^(power - 1)

    which is V diag(l') V^-1 without the rounding errors of the eigenvalues that stay; power 1
    returns K itself. All in float64, class by class.

    The complex eigenvalues of a real matrix come in conjugate pairs, of one modulus. Where the
    ``rank`` boundary falls between the two, the whole pair is normalised, rank + 1 eigenvalues in
    that class: both are equally large, and changing one alone gives a matrix that is not real, so
    that its real part has neither the old nor the new eigenvalues. The published code does just
    that; ``split_pairs`` repeats it.

    Args:
        K: real (c, d, d).
        rank: number of eigenvalues, 0 to d.
        power: not negative. An eigenvalue of zero stays zero.
        split_pairs: cut at exactly ``rank`` and keep the real part.
        progress: wraps the range of classes, for a progress bar.

    Returns:
        K' with the shape, dtype and device of K, and the report.

    Raises:
        ModelError: K is not square or not finite, rank or power out of range, or the eigenvectors
            of a class are linearly dependent (the message names the class).
    """
    _check_operators(K)
    if K.dim() != 3:
        raise ModelError(f"koopman: expected operators (c, d, d), got {tuple(K.shape)}")
    if not 0 <= rank <= K.shape[-1]:
        raise ModelError(f"koopman: rank must be 0 to {K.shape[-1]}, got {rank}")
    if not 0 <= power < float("inf"):
        raise ModelError(f"koopman: power must be a finite number, 0 or more, got {power}")
    operators = K.detach().cpu()
    rebuilt, rows = torch.empty_like(operators), []
    for c in progress(range(len(operators))):
        try:
            rebuilt[c], row = _normalize_one(operators[c], rank, power, split_pairs)
        except ModelError as error:
            raise ModelError(f"koopman: class {c}: {error}") from error
        rows.append(row)
    columns = zip(*rows, strict=True)
    return rebuilt.to(K.device), NormalizationReport(*(torch.stack(column) for column in columns))


def _normalize_one(
    K: Tensor, rank: int, power: float, split_pairs: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the rebuilt (d, d) operator of one class and its row of the report."""
    exact = K.double()
    eigenvalues, vectors = torch.linalg.eig(exact)
    order = _descending(eigenvalues)
    eigenvalues, vectors = eigenvalues[order], vectors[:, order]
    count = rank
    if rank and not split_pairs and eigenvalues[rank - 1].imag > 0:
        count += 1  # the last one is the first of a pair, see _descending
    target = eigenvalues.clone()
    target[:count] = _with_modulus_power(eigenvalues[:count], power)
    moved = target != eigenvalues

    rebuilt = exact.to(eigenvalues.dtype)
    if moved.any():
        left = _inverse(vectors)[moved]
        rebuilt = rebuilt + (vectors[:, moved] * (target - eigenvalues)[moved]) @ left
    norm = torch.linalg.matrix_norm(rebuilt).clamp_min(torch.finfo(torch.float64).tiny)
    result = rebuilt.real.to(K.dtype)
    achieved = spectrum(result)
    errors = result.to(eigenvalues.dtype) @ vectors - vectors * target
    return result, (
        eigenvalues,
        achieved,
        torch.tensor(count),
        torch.linalg.cond(vectors),
        torch.linalg.matrix_norm(rebuilt.imag) / norm,
        torch.linalg.vector_norm(errors, dim=0).amax() / norm,
        (achieved.abs() - target.abs().sort(descending=True).values).abs().amax(),
    )


def _with_modulus_power(eigenvalues: Tensor, power: float) -> Tensor:
    """Return eigenvalues of modulus r^power at the same angles; zero stays zero."""
    modulus = eigenvalues.abs()
    scale = torch.where(modulus > 0, modulus, 1.0) ** (power - 1)
    return eigenvalues * scale


def _inverse(vectors: Tensor) -> Tensor:
    """Return the inverse of the eigenvector matrix, whose rows are the left eigenvectors."""
    inverse, info = torch.linalg.inv_ex(vectors)
    if info.item() or not torch.isfinite(torch.view_as_real(inverse)).all():
        raise ModelError("its eigenvectors are linearly dependent, so that it cannot be rebuilt")
    return inverse


def _descending(eigenvalues: Tensor) -> Tensor:
    """Return the order of falling modulus.

    LAPACK returns the two of a pair as neighbours, the positive imaginary part first, with exactly
    equal moduli; a stable sort keeps them so.
    """
    return eigenvalues.abs().sort(dim=-1, descending=True, stable=True).indices


def _check_frames(x: Tensor) -> None:
    """Refuse a sequence without a next frame."""
    if x.shape[-1] < 2:
        raise ModelError(f"koopman: at least 2 frames are needed, got {x.shape[-1]}")


def _check_operators(K: Tensor) -> None:
    """Refuse matrices that are not square, not real, or not finite."""
    if K.dim() < 2 or K.shape[-1] != K.shape[-2] or not K.is_floating_point():
        raise ModelError(
            f"koopman: expected real square matrices (..., d, d), got {K.dtype} {tuple(K.shape)}"
        )
    if not torch.isfinite(K).all():
        bad = torch.nonzero(~torch.isfinite(K).flatten(-2).all(-1)).flatten(1).tolist()
        raise ModelError(f"koopman: K has values that are not finite, in classes {bad[:5]}")
