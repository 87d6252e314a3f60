"""Matching and the one-shot evaluator: golden numbers, known dynamics, independence of order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.errors import ModelError
from model.koopman import fit_operator, fit_transition, koopman_scores
from model.matching import MATCHES, Matcher
from model.oneshot import Evaluator


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    """Arrays of the recorded one-shot case."""
    with np.load(shared / "parity" / "oneshot.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}


@pytest.mark.parametrize(("match", "recorded"), [("dmd", "koopman"), ("l2", "l2")])
def test_distances_equal_the_recorded_ones(
    golden: dict[str, Tensor], match: str, recorded: str
) -> None:
    matcher = Matcher(golden["exemplar"][:, None], match, rcond=0.9)
    distances = matcher.distances(golden["query"])
    torch.testing.assert_close(distances, golden[f"{recorded}_error"], rtol=1e-11, atol=1e-12)
    nearest = distances.argmin(dim=1)
    assert torch.equal(nearest, golden[f"{recorded}_pred_exemplar"])
    predicted = golden["exemplar_label"][nearest]
    assert torch.equal(predicted, golden[f"{recorded}_pred_label"])
    accuracy = (predicted == golden["query_label"]).double().mean()
    assert accuracy.item() == golden[f"{recorded}_accuracy"].item()


def test_operators_equal_the_recorded_ones(golden: dict[str, Tensor]) -> None:
    """A query of unit vectors reads an operator off, column by column."""
    exemplar = golden["exemplar"]
    matcher = Matcher(exemplar[:, None], "dmd", rcond=0.9)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, exemplar.shape[1], 2, generator=generator, dtype=torch.float64)
    step = torch.einsum("cde,ne->ncd", golden["exemplar_K"], x[..., 0])
    expected = (step - x[:, None, :, 1]).norm(dim=2)
    torch.testing.assert_close(matcher.distances(x), expected, rtol=1e-11, atol=1e-12)


def _sequences(operator: Tensor, count: int, frames: int, seed: int) -> Tensor:
    """(count, d, frames) trajectories of a linear dynamic from random starts."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(count, len(operator), generator=generator, dtype=torch.float64)
    states = [state]
    for _ in range(frames - 1):
        states.append(states[-1] @ operator.T)
    return torch.stack(states, dim=2)


def _operators() -> Tensor:
    """Three non-normal dynamics of radius below 1, (3, 5, 5)."""
    generator = torch.Generator().manual_seed(4)
    raw = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    return 0.9 * raw / torch.linalg.eigvals(raw).abs().amax(dim=1)[:, None, None]


def test_shots_of_one_dynamic_are_fitted_jointly() -> None:
    """Two sequences of three frames hold only four pairs: one more makes five and the exact K."""
    operators = _operators()
    exemplars = torch.stack([_sequences(K, 3, 3, seed=c) for c, K in enumerate(operators)])
    queries = torch.cat([_sequences(K, 4, 9, seed=9) for K in operators])
    distances = Matcher(exemplars, "dmd", rcond=1e-12).distances(queries)
    assert distances.argmin(dim=1).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert distances.gather(1, distances.argmin(dim=1)[:, None]).max() < 1e-9
    single = Matcher(exemplars[:, :2], "dmd", rcond=1e-12).distances(queries)
    assert single.min(dim=1).values.max() > 1e-3


def test_means_and_angles() -> None:
    """Two shots average; cosine does not see the length, l2 does."""
    constant = torch.tensor([[[2.0, 0.0], [4.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    exemplars = constant[..., None].expand(-1, -1, -1, 6)
    query = torch.tensor([[[0.0], [10.0]]]).expand(-1, -1, 6)
    torch.testing.assert_close(
        Matcher(exemplars, "l2").distances(query), torch.tensor([[109.0**0.5, 8.0]])
    )
    torch.testing.assert_close(
        Matcher(exemplars, "cosine").distances(query), torch.tensor([[1.0, 0.0]])
    )


def test_the_fit_of_single_precision_features_is_made_in_double() -> None:
    generator = torch.Generator().manual_seed(6)
    features, x = torch.randn(2, 3, 8, 20, generator=generator)
    operators = fit_operator(features.double(), rcond=0.3).float()
    distances = Matcher(features[:, None], "dmd", rcond=0.3).distances(x)
    assert torch.equal(distances, -koopman_scores(x, operators))


def test_exemplars_are_fitted_a_few_classes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit takes many times the memory of its exemplars: a thousand must not go at once."""
    exemplars = torch.randn(21, 2, 6, 9, generator=torch.Generator().manual_seed(1))
    classes = []

    def counted(before: Tensor, after: Tensor, rcond: float | None) -> Tensor:
        classes.append(len(before))
        return fit_transition(before, after, rcond)

    monkeypatch.setattr("model.matching.fit_transition", counted)
    x = torch.randn(5, 6, 9, generator=torch.Generator().manual_seed(2))
    together = Matcher(exemplars).distances(x)
    assert (sum(classes), max(classes)) == (21, 8)
    alone = [Matcher(exemplars[c : c + 1]).distances(x) for c in range(21)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("match", MATCHES)
def test_bounded_memory_does_not_change_the_result(
    monkeypatch: pytest.MonkeyPatch, match: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    matcher = Matcher(torch.randn(4, 2, 6, 9, generator=generator), match)
    x = torch.randn(23, 6, 9, generator=generator)
    whole = matcher.distances(x)
    monkeypatch.setattr("model.matching.RESIDUAL_ELEMENTS", 1)
    torch.testing.assert_close(matcher.distances(x), whole, rtol=1e-6, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = matcher.distances(x)
    torch.testing.assert_close(under_autocast, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "match", "rcond", "said"),
    [
        ((4, 6, 9), "dmd", 0.9, r"expected \(c, k, d, T\), got \(4, 6, 9\)"),
        ((4, 0, 6, 9), "l2", 0.9, "expected"),
        ((4, 1, 6, 9), "dtw", 0.9, "'dtw' is not one of dmd, l2, cosine"),
        ((4, 1, 6, 9), "dmd", 1.0, "rcond must be"),
        ((4, 1, 6, 9), "dmd", float("nan"), "rcond must be"),
    ],
)
def test_impossible_arguments_are_refused(
    shape: tuple[int, ...], match: str, rcond: float, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        Matcher(torch.ones(shape), match, rcond)  # type: ignore[arg-type]


def test_queries_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"expected x \(N, 6, T\), got \(2, 5, 9\)"):
        Matcher(torch.ones(4, 1, 6, 9), "l2").distances(torch.ones(2, 5, 9))


class _Exemplars:
    """Four samples of each of three classes, in a given order."""

    def __init__(self, order: list[int]) -> None:
        self.x = np.random.default_rng(0).standard_normal((12, 3, 8, 4, 2))[order]
        self.labels = np.arange(12)[order] // 4
        self.sample_names = [f"s{i}" for i in order]

    def get_batch(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.asarray(indices)
        return self.x[rows], self.labels[rows], rows


class _Net(nn.Module):
    """Something with batch statistics, so that training mode would show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(3, 5, 1)
        self.norm = nn.BatchNorm3d(5)
        self.double()  # in which another order of summation shows

    def pooled(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean(dim=(3, 4))


@pytest.mark.parametrize("match", MATCHES)
def test_scores_do_not_depend_on_order_or_mode_of_the_model(match: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(7, 3, 8, 4, 2, generator=generator, dtype=torch.float64)
    results = []
    for order, training in [
        (list(range(12)), False),
        ([5, 9, 2, 11, 0, 4, 8, 1, 7, 3, 10, 6], True),
    ]:
        model, evaluator = _Net(), Evaluator(_Exemplars(order), match)
        model.train(training)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        evaluator.prepare(model, torch.device("cpu"))
        assert model.training is training
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        results.append(evaluator(model.eval(), x))
    assert results[0].shape == (7, 3)
    assert torch.equal(*results)


def test_an_exemplar_is_nearest_to_its_own_class_and_matchings_stand_side_by_side() -> None:
    exemplars = _Exemplars([8, 0, 4])
    evaluator, model = Evaluator(exemplars, MATCHES, rcond=0.0), _Net().eval()
    evaluator.prepare(model, torch.device("cpu"))
    scores = evaluator(model, torch.from_numpy(exemplars.x)).unflatten(1, (3, 3))
    for position, match in enumerate(MATCHES):
        single = Evaluator(exemplars, match, rcond=0.0)
        single.prepare(model, torch.device("cpu"))
        alone = single(model, torch.from_numpy(exemplars.x))
        assert torch.equal(scores[:, position], alone)
    assert scores[:, 1].argmax(dim=1).tolist() == [2, 0, 1]


def test_uneven_exemplars_and_models_without_features_are_refused() -> None:
    exemplars = _Exemplars([0, 1, 4, 5, 8])
    with pytest.raises(ModelError, match=r"equally many exemplars, got \[2, 2, 1\]"):
        Evaluator(exemplars)
    with pytest.raises(ModelError, match="Identity has no pooled"):
        Evaluator(_Exemplars([0, 4, 8])).prepare(nn.Identity(), torch.device("cpu"))
