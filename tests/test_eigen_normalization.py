"""The command between the two stages."""

from pathlib import Path

import pytest
import torch

import eigen_normalization
from model.spectrum import normalize_eigenvalues, spectrum


def checkpoint(path: Path, prefix: str = "") -> dict[str, torch.Tensor]:
    """Write a small checkpoint of three classes and return its entries without the prefix."""
    torch.manual_seed(0)
    weights = {"K": torch.randn(3, 40, 40) * 0.2, "fc.bias": torch.arange(3.0)}
    torch.save({prefix + key: value for key, value in weights.items()}, path)
    return weights


def command(tmp_path: Path, *extra: str) -> list[str]:
    source, target = tmp_path / "in.pt", tmp_path / "out.pt"
    return ["--load-path", str(source), "--save-path", str(target), *extra]


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_k_is_normalised_and_the_rest_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prefix: str
) -> None:
    weights = checkpoint(tmp_path / "in.pt", prefix)
    assert eigen_normalization.main(command(tmp_path, "--num_class=3")) == 0
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    assert written.keys() == weights.keys()
    assert torch.equal(written["K"], normalize_eigenvalues(weights["K"])[0])
    assert torch.equal(written["fc.bias"], weights["fc.bias"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pt", "out.json", "out.pt"]
    radius = spectrum(weights["K"]).abs()[:, 0].sort().values
    low, middle, high = radius.tolist()
    expected = f"spectral radius before: min {low:.4f}, median {middle:.4f}, max {high:.4f}"
    assert expected in capsys.readouterr().out


def test_options_reach_the_computation(tmp_path: Path) -> None:
    weights = checkpoint(tmp_path / "in.pt")
    options = ["--rank", "5", "--power", "0.5", "--split_pairs"]
    assert eigen_normalization.main(command(tmp_path, *options)) == 0
    written = torch.load(tmp_path / "out.pt", weights_only=True)
    expected = normalize_eigenvalues(weights["K"], rank=5, power=0.5, split_pairs=True)[0]
    assert torch.equal(written["K"], expected)


def test_plot(tmp_path: Path) -> None:
    checkpoint(tmp_path / "in.pt")
    assert eigen_normalization.main(command(tmp_path, "--plot")) == 0
    assert (tmp_path / "out_spectrum.png").read_bytes().startswith(b"\x89PNG")


def test_an_existing_output_is_kept_unless_told(tmp_path: Path) -> None:
    checkpoint(tmp_path / "in.pt")
    (tmp_path / "out.pt").write_text("precious")
    assert eigen_normalization.main(command(tmp_path)) == 2
    assert (tmp_path / "out.pt").read_text() == "precious"
    assert eigen_normalization.main(command(tmp_path, "--overwrite")) == 0
    assert "K" in torch.load(tmp_path / "out.pt", weights_only=True)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (None, [], "in.pt: no such"),
        (b"not a checkpoint", [], "in.pt"),
        ({"weight": torch.zeros(2)}, [], "in.pt: holds no Koopman operators"),
        ([1, 2], [], "in.pt"),
        ({"K": torch.zeros(3, 40, 40)}, ["--num-class", "4"], "3 classes, not --num-class 4"),
        ({"K": torch.zeros(3, 40, 40)}, ["--rank", "41"], "rank must be 0 to 40, got 41"),
        ({"K": torch.full((1, 40, 40), torch.inf)}, [], "not finite"),
        ({"K": torch.zeros(40)}, [], "expected (classes, d, d)"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: object,
    options: list[str],
    words: str,
) -> None:
    source = tmp_path / "in.pt"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        torch.save(content, source)
    assert eigen_normalization.main(command(tmp_path, *options)) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert words in message
    assert not (tmp_path / "out.pt").exists()


def test_a_missing_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint(tmp_path / "in.pt")
    arguments = ["--load-path", str(tmp_path / "in.pt"), "--save-path", str(tmp_path / "a" / "b")]
    assert eigen_normalization.main(arguments) == 2
    assert "no such folder" in capsys.readouterr().err
