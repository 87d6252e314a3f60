"""Eigenvalues of Koopman operators and their normalisation between the two stages."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import ModelError

BADLY_CONDITIONED = 1e8
"""Condition number of eigenvectors beyond which rounding in float64 (1e-16) reaches the digits
that float32 (1e-8) keeps."""


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

    With K = V diag(l) V^-1, rows u_i of V^-1, and the chosen i::

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


def _check_operators(K: Tensor) -> None:
    """Refuse matrices that are not square, not real, or not finite."""
    if K.dim() < 2 or K.shape[-1] != K.shape[-2] or not K.is_floating_point():
        raise ModelError(
            f"koopman: expected real square matrices (..., d, d), got {K.dtype} {tuple(K.shape)}"
        )
    if not torch.isfinite(K).all():
        bad = torch.nonzero(~torch.isfinite(K).flatten(-2).all(-1)).flatten(1).tolist()
        raise ModelError(f"koopman: K has values that are not finite, in classes {bad[:5]}")
