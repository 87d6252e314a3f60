"""Koopman numerics: identities, references and the published cases."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import ModelError
from model.koopman import fit_operator, koopman_scores
from model.spectrum import normalize_eigenvalues, spectrum


def stable_operator(d: int, seed: int) -> torch.Tensor:
    """A non-normal operator with known spectrum inside the unit circle."""
    generator = np.random.default_rng(seed)
    blocks = np.zeros((d, d))
    for i in range(0, d - 1, 2):
        radius, angle = generator.uniform(0.3, 0.95), generator.uniform(0.2, 2.9)
        cos, sin = radius * np.cos(angle), radius * np.sin(angle)
        blocks[i : i + 2, i : i + 2] = [[cos, -sin], [sin, cos]]
    basis = generator.standard_normal((d, d)) + 2 * np.eye(d)
    return torch.from_numpy(basis @ blocks @ np.linalg.inv(basis))


def trajectory(K: torch.Tensor, frames: int, seed: int) -> torch.Tensor:
    """The sequence (d, T) that K itself produces."""
    x = [torch.randn(K.shape[0], dtype=K.dtype, generator=torch.Generator().manual_seed(seed))]
    for _ in range(frames - 1):
        x.append(K @ x[-1])
    return torch.stack(x, dim=1)


def published_operators(seed: int) -> torch.Tensor:
    """The operators of the golden normalisation cases, float32 (3, 256, 256)."""
    generator = np.random.default_rng(seed)
    operators = []
    for spread in (0.02, 0.08, 0.03):
        permutation = generator.permutation(256)
        sign = 2.0 * generator.integers(0, 2, 256) - 1.0
        noise = generator.standard_normal((256, 256))
        shift = np.zeros((256, 256))
        shift[np.arange(256), permutation] = 0.9 * sign
        operators.append(shift + spread * noise)
    return torch.from_numpy(np.stack(operators).astype(np.float32))


def test_published_scores(shared: Path) -> None:
    golden = np.load(shared / "parity" / "head.npz")
    K, x = torch.from_numpy(golden["K"]), torch.from_numpy(golden["x"])
    torch.testing.assert_close(
        koopman_scores(x, K), torch.from_numpy(golden["scores"]), rtol=1e-12, atol=0
    )
    pooled = torch.from_numpy(golden["x_ctvm"]).mean((3, 4))
    torch.testing.assert_close(
        koopman_scores(pooled, K), torch.from_numpy(golden["scores_ctvm"]), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("classes", [1, 16, 37])
def test_scores_and_gradients_equal_the_plain_formula(classes: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, 9, dtype=torch.float64, requires_grad=True)
    K = torch.randn(classes, 6, 6, dtype=torch.float64, requires_grad=True)
    predicted = torch.einsum("cde,net->ncdt", K, x[..., :-1])
    expected = -(predicted - x[:, None, :, 1:]).norm(dim=2).mean(-1)
    scores = koopman_scores(x, K)
    torch.testing.assert_close(scores, expected, rtol=1e-12, atol=0)
    direction = torch.randn_like(scores)
    torch.testing.assert_close(
        torch.autograd.grad(scores, (x, K), direction),
        torch.autograd.grad(expected, (x, K), direction),
        rtol=1e-10,
        atol=1e-12,
    )


def test_score_gradcheck_and_frozen_operators() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    K = torch.randn(18, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(koopman_scores, (x, K))
    assert torch.autograd.gradcheck(lambda features: koopman_scores(features, K.detach()), (x,))
    assert torch.autograd.gradcheck(lambda k: koopman_scores(x.detach(), k), (K,))


def test_a_perfect_prediction_scores_highest_and_has_a_finite_gradient() -> None:
    operators = torch.stack([stable_operator(6, seed) for seed in range(5)]).requires_grad_()
    x = torch.stack([trajectory(K, 8, seed=3) for K in operators.detach()])
    scores = koopman_scores(x, operators)
    assert scores.argmax(1).tolist() == list(range(5))
    assert scores.diagonal().abs().max() < 1e-12
    still = koopman_scores(torch.zeros(1, 6, 4, dtype=torch.float64), operators)
    (still.sum() + scores.sum()).backward()
    assert torch.isfinite(operators.grad).all()
    assert still.abs().max() == 0


def test_scores_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    x, K = torch.randn(2, 64, 9), torch.randn(3, 64, 64)
    exact = koopman_scores(x.double(), K.double())
    with torch.autocast("cpu", torch.bfloat16):
        scores = koopman_scores(x, K)
        from_half = koopman_scores(x.bfloat16(), K)
    assert scores.dtype == from_half.dtype == torch.float32
    assert ((scores - exact) / exact).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("x", "K", "words"),
    [
        ((2, 4, 1), (3, 4, 4), "at least 2 frames"),
        ((2, 4, 5), (3, 5, 5), "expected x"),
        ((2, 4, 5), (4, 4), "expected x"),
        ((4, 5), (3, 4, 4), "expected x"),
    ],
)
def test_score_refuses_wrong_shapes(x: tuple[int, ...], K: tuple[int, ...], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        koopman_scores(torch.zeros(x), torch.zeros(K))


def test_fit_returns_the_operator_that_made_the_sequence() -> None:
    operators = torch.stack([stable_operator(6, seed) for seed in range(4)])
    x = torch.stack([trajectory(K, 14, seed=1) for K in operators])
    torch.testing.assert_close(fit_operator(x), operators, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fit_operator(x[2]), fit_operator(x)[2])


def test_published_fits(shared: Path) -> None:
    golden = np.load(shared / "parity" / "oneshot.npz")
    K = fit_operator(torch.from_numpy(golden["exemplar"]), rcond=0.9)
    torch.testing.assert_close(K, torch.from_numpy(golden["exemplar_K"]), rtol=1e-10, atol=1e-12)
    assert torch.linalg.matrix_rank(K).tolist() == golden["kept_rank"].tolist()


def test_fit_of_a_sequence_at_rest_is_zero_and_bad_input_is_refused() -> None:
    assert fit_operator(torch.zeros(3, 5)).abs().max() == 0
    with pytest.raises(ModelError, match="2 frames"):
        fit_operator(torch.zeros(3, 1))
    with pytest.raises(ModelError, match="finite"):
        fit_operator(torch.full((3, 5), torch.nan))


def test_spectrum_is_sorted_and_complete() -> None:
    K = torch.stack([stable_operator(8, seed) for seed in range(3)])
    values = spectrum(K)
    assert (values.abs().diff(dim=-1) <= 0).all()
    torch.testing.assert_close(values.sum(-1).real, K.diagonal(dim1=1, dim2=2).sum(-1))
    product = torch.tensor(np.prod(values.numpy(), axis=-1).real)
    torch.testing.assert_close(product, torch.linalg.det(K))


@pytest.mark.parametrize("case", ["clean", "split"])
def test_published_normalisation(shared: Path, case: str) -> None:
    golden = np.load(shared / "parity" / f"eigen_{case}.npz")
    K = published_operators(int(golden["seed"]))
    assert hashlib.sha256(K.numpy().tobytes()).hexdigest() == str(golden["K_in_sha256"])
    rebuilt, report = normalize_eigenvalues(K, rank=32, power=0.25, split_pairs=True)
    assert np.abs(rebuilt.numpy() - golden["K_out"]).max() < 1e-6
    np.testing.assert_allclose(np.sort(report.before.abs()), golden["mag_in"], atol=1e-10)
    np.testing.assert_allclose(np.sort(report.after.abs()), golden["mag_out"], atol=1e-5)
    np.testing.assert_allclose(report.condition, golden["eigvec_cond"], rtol=1e-6)
    whole, kept = normalize_eigenvalues(K, rank=32, power=0.25)
    splits = torch.from_numpy(golden["boundary_splits_pair"])
    assert torch.equal(kept.changed, 32 + splits.long())
    assert torch.equal((whole != rebuilt).flatten(1).any(1), splits)
    assert kept.imaginary.max() < 1e-12
    assert kept.modulus_error.max() < 1e-6
    assert ((report.imaginary > 1e-6) == splits).all()


def test_power_one_and_rank_zero_change_nothing() -> None:
    K = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(normalize_eigenvalues(K, rank=16, power=1.0)[0], K)
    assert torch.equal(normalize_eigenvalues(K, rank=0, power=0.25)[0], K)


@pytest.mark.parametrize("rank", range(9))
def test_chosen_moduli_change_at_their_phase_and_others_stay(rank: int) -> None:
    K = stable_operator(8, seed=7).unsqueeze(0)
    rebuilt, report = normalize_eigenvalues(K, rank=rank, power=0.25)
    before = report.before[0]
    count = int(report.changed)
    assert count == rank + rank % 2  # all eight come in pairs: an odd rank takes one more
    target = before.clone()
    target[:count] = before[:count] * before[:count].abs() ** -0.75
    achieved = torch.linalg.eigvals(rebuilt[0])
    distances = (achieved[:, None] - target).abs()
    assert distances.amin(0).max() < 1e-10
    assert distances.amin(1).max() < 1e-10
    assert report.residual.max() < 1e-12


def test_zero_moduli_and_defective_matrices() -> None:
    zero = torch.zeros(1, 4, 4)
    assert torch.equal(normalize_eigenvalues(zero, rank=4)[0], zero)
    assert torch.equal(normalize_eigenvalues(zero, rank=4, power=0.0)[0], zero)
    nilpotent = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    rebuilt, report = normalize_eigenvalues(nilpotent, rank=2)
    assert torch.equal(rebuilt, nilpotent)
    assert "class 0: eigenvectors are badly conditioned" in report.warnings()[0]
    diagonal = torch.diag(torch.tensor([16.0, 0.0])).unsqueeze(0)
    torch.testing.assert_close(
        normalize_eigenvalues(diagonal, rank=2)[0], torch.diag(torch.tensor([2.0, 0.0]))[None]
    )


def test_well_conditioned_operators_bring_no_warning_and_a_summary() -> None:
    _, report = normalize_eigenvalues(torch.eye(4).expand(3, 4, 4) * 0.5, rank=2)
    assert report.warnings() == []
    assert "min 0.5000, median 0.5000, max 0.5000" in report.summary()[0]
    assert f"median {0.5**0.25:.4f}" in report.summary()[1]


@pytest.mark.parametrize(
    ("K", "extra", "words"),
    [
        (torch.zeros(2, 3, 4), {}, "square"),
        (torch.zeros(3, 3), {"rank": 1}, r"\(c, d, d\)"),
        (torch.full((2, 3, 3), torch.nan), {"rank": 1}, r"classes \[\[0\], \[1\]\]"),
        (torch.zeros(1, 3, 3), {"rank": 4}, "rank must be 0 to 3, got 4"),
        (torch.zeros(1, 3, 3), {"rank": 3, "power": -1.0}, "power"),
        (torch.zeros(1, 3, 3), {"rank": 3, "power": float("nan")}, "power"),
        (torch.zeros(1, 3, 3, dtype=torch.int64), {}, "real square"),
    ],
)
def test_normalisation_refuses(K: torch.Tensor, extra: dict[str, float], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        normalize_eigenvalues(K, **extra)
