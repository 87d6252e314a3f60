"""One-shot splits: who is auxiliary, exemplar and query, for made-up NTU names and for any data."""

from pathlib import Path

import numpy as np
import pytest
from toy_ucla import write_ucla

from data.errors import DataError
from data.oneshot import choose_exemplars
from data.skeletons import Skeleton
from data.splits import EXEMPLARS, NOVEL_ACTIONS, NTU120, parse_name
from data.store import write_store
from feeders import feeder_demo, feeder_ntu
from feeders.dataset import ArraySource, SkeletonDataset
from feeders.oneshot import Feeder
from feeders.transforms import Centre, EvenFrames
from model.published import ALIASES
from torchlight.layers import read_layers
from torchlight.registry import resolve
from torchlight.values import meaning

PROTOCOL = tuple(action - 1 for action in NOVEL_ACTIONS)


class Toy(SkeletonDataset):
    """Six samples a class and split; x holds split, row, a random number and augmentation."""

    classes = 5

    def __init__(
        self, *, split: str, repeat: int = 1, augment: bool | None = None, seed: int = 0
    ) -> None:
        rows = range(6 * self.classes)
        augmented = split == "train" if augment is None else augment

        def spoil(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return np.concatenate(
                [x, np.full_like(x[:1], rng.random()), np.full_like(x[:1], augmented)]
            )

        source = ArraySource(
            Skeleton("point", 1, (), 0),
            # Name order and row order differ.
            [f"{split}-{(7 * row) % len(rows):02d}" for row in rows],
            [row % self.classes for row in rows],
            [row // self.classes for row in rows],
            [np.array([split == "test", row], "f4")[:, None, None, None] for row in rows],
        )
        super().__init__(source, transforms=[spoil], repeat=repeat, seed=seed)


def _ntu_names() -> list[str]:
    """Made-up samples of all 120 actions: ten performers before three cameras."""
    return [
        f"S{1 if action <= 60 else 18:03d}C{camera:03d}P{performer:03d}R001A{action:03d}"
        for action in range(1, 121)
        for performer in range(1, 11)
        for camera in range(1, 4)
    ]


def _parts(**arguments: object) -> dict[str, Feeder]:
    return {part: Feeder(split=part, **arguments) for part in ("train", "exemplar", "test")}  # type: ignore[arg-type]


def test_ntu_protocol_on_made_up_samples() -> None:
    """Exemplars are exactly those named; no auxiliary sample is of a novel class."""
    names = _ntu_names()
    parts = _parts(novel_classes=PROTOCOL, exemplars="ntu", base=_everyone(names), pool=("train",))
    assert set(parts["exemplar"].sample_names) == EXEMPLARS
    assert len(EXEMPLARS) == 20
    action = {part: {int(n[-3:]) for n in f.sample_names} for part, f in parts.items()}
    assert not action["train"] & set(NOVEL_ACTIONS)
    assert len(action["train"]) == 100
    assert action["test"] == action["exemplar"] == set(NOVEL_ACTIONS)
    together = [name for feeder in parts.values() for name in feeder.sample_names]
    assert sorted(together) == sorted(names)
    train = parts["train"]
    assert sorted(set(train.labels)) == list(range(100))
    assert [train.class_names[label] for label in train.labels] == [
        str(int(name[-3:]) - 1) for name in train.sample_names
    ]
    for part in ("exemplar", "test"):
        expected = [PROTOCOL.index(int(name[-3:]) - 1) for name in parts[part].sample_names]
        assert parts[part].labels.tolist() == expected


def _everyone(names: list[str]) -> type:
    """The class of a feeder of these samples, without their movements."""

    class Base(SkeletonDataset):
        def __init__(self, *, split: str, seed: int = 0) -> None:
            labels = [int(name[-3:]) - 1 for name in names]
            subjects = [int(name[9:12]) for name in names]
            point = Skeleton("point", 1, (), 0)
            super().__init__(ArraySource(point, names, labels, subjects, []), seed=seed)

    return Base


@pytest.mark.parametrize("missing", ["S001C003P008R001A007", "S018C003P008R001A115"])
def test_a_missing_exemplar_is_named(missing: str) -> None:
    names = _ntu_names()
    names.remove(missing)
    with pytest.raises(DataError, match=f"exemplar {missing} is missing"):
        Feeder(
            split="test",
            novel_classes=PROTOCOL,
            exemplars="ntu",
            base=_everyone(names),
            pool=("train",),
        )


def test_parts_of_a_pooled_data_set() -> None:
    """Both splits of the base are used; what comes out is what the base gives for that sample."""
    parts = _parts(novel_classes=[3, 1], base=Toy, base_args={"repeat": 2}, shots=2)
    assert [len(parts[p].sample_names) for p in ("train", "exemplar", "test")] == [36, 4, 20]
    bases = {split: Toy(split=split, repeat=2) for split in ("train", "test")}
    for part, feeder in parts.items():
        assert len(feeder) == 2 * len(feeder.sample_names)
        assert feeder.sample_names == sorted(feeder.sample_names)
        feeder.set_epoch(4)
        batch, labels, indices = feeder.get_batch(range(len(feeder)))
        assert len(np.unique(batch[:, 2])) == len(batch), "repeats have numbers of their own"
        for x, label, index in zip(batch, labels, indices, strict=True):
            own, own_label, own_index = feeder[int(index)]
            np.testing.assert_array_equal(own, x)
            assert (own_label, own_index) == (label, index)
            in_test, row, _, augmented = x[:, 0, 0, 0].astype(float)
            base = bases["test" if in_test else "train"]
            name = feeder.sample_names[index % len(feeder.sample_names)]
            assert base.sample_names[int(row)] == name
            assert base.subjects[int(row)] == feeder.subjects[index % len(feeder.sample_names)]
            original = [0, 2, 4][label] if part == "train" else [3, 1][label]
            assert base.labels[int(row)] == original == int(feeder.class_names[label])
            assert bool(augmented) == (part == "train")
    exemplars = parts["test"].exemplars
    assert exemplars.sample_names == parts["exemplar"].sample_names
    for label in (0, 1):
        of_class = [
            n for p in ("exemplar", "test")
            for n, own in zip(parts[p].sample_names, parts[p].labels, strict=True) if own == label
        ]  # fmt: skip
        chosen = [
            n for n, own in zip(exemplars.sample_names, exemplars.labels, strict=True)
            if own == label
        ]  # fmt: skip
        assert chosen == sorted(of_class)[:2]


@pytest.mark.parametrize("novel", [[], [5, 6]])
def test_a_training_set_that_is_cut_already_stays_whole(novel: list[int]) -> None:
    """As a published file of the auxiliary set: of the novel classes it has no sample."""
    train = Feeder(split="train", novel_classes=novel, base=Toy, pool=("train",))
    assert sorted(train.sample_names) == sorted(Toy(split="train").sample_names)
    assert train.class_names == ["0", "1", "2", "3", "4"]


def test_named_exemplars_follow_the_queries() -> None:
    named = ["test-11", "train-02"]
    base = {name: label for split in ("train", "test")
            for name, label in zip(*_names_and_labels(split), strict=True)}  # fmt: skip
    novel = [base[name] for name in named]
    queries = Feeder(split="test", novel_classes=novel, base=Toy, exemplars=named)
    assert set(queries.exemplars.sample_names) == set(named)
    assert not set(queries.sample_names) & set(named)


def _names_and_labels(split: str) -> tuple[list[str], list[int]]:
    toy = Toy(split=split)
    return toy.sample_names, toy.labels.tolist()


def test_rules() -> None:
    names = {6: ["S001C003P008R001A007", "S001C001P001R001A007", "S002C001P001R001A007"]}
    assert choose_exemplars(names, "first", 2)[6] == sorted(names[6])[:2]
    assert choose_exemplars(names, "ntu", 2)[6] == [names[6][0], "S001C001P001R001A007"]
    assert choose_exemplars(names, [names[6][2], names[6][0]], 1)[6] == [names[6][2]]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"novel_classes": [], "split": "test"}, "novel_classes: .. must be distinct"),
        ({"novel_classes": [9], "split": "test"}, r"no sample of \[9\]"),
        ({"novel_classes": [1, 1]}, "must be distinct"),
        ({"novel_classes": [1, 9]}, r"no sample of \[9\]"),
        ({"novel_classes": [0, 1, 2, 3, 4]}, "leaves no class"),
        ({"shots": 0}, "shots"),
        ({"split": "val"}, "'val' is not one of"),
        ({"base": "os.path.join"}, "base: 'os.path.join'"),
        ({"base": "feeders.absent.Feeder"}, "not one of feeders.feeder_demo.Feeder, "),
        ({"base": "feeders.arguments.at_least_one"}, "reads no data set"),
        ({"base_args": {"repat": 2}}, "base_args: 'repat' is not one of split, repeat, "),
        ({"pool": ["train", "train"]}, "share samples"),
    ],
)
def test_impossible_arguments(changed: dict, said: str) -> None:
    arguments = {"split": "train", "novel_classes": [1], "base": Toy, **changed}
    with pytest.raises(DataError, match=said):
        Feeder(**arguments)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shots": 12}, "12 samples and 12 exemplars; 12 and at least one query"),
        ({"exemplars": "best"}, "'best' is neither"),
        ({"exemplars": ["nobody"]}, "nobody is no sample of a novel class"),
        ({"exemplars": ["train-07"], "novel_classes": [1, 2]}, "0 exemplars; 1 and"),
    ],
)
def test_impossible_exemplars(changed: dict, said: str) -> None:
    arguments = {"split": "test", "novel_classes": [1], "base": Toy, **changed}
    with pytest.raises(DataError, match=said):
        Feeder(**arguments)


def test_evaluation_parts_are_never_random() -> None:
    """Through a real feeder: queries and exemplars are the same whatever seed and epoch."""
    arguments = {
        "novel_classes": [0, 5],
        "base": "feeders.feeder_demo.Feeder",
        "base_args": {"performers": 4, "replications": 1},
    }
    assert feeder_demo.Feeder.__module__ == "feeders.feeder_demo"
    for part, constant in (("exemplar", True), ("test", True), ("train", False)):
        seen = []
        for seed, epoch in ((0, 0), (7, 3)):
            feeder = Feeder(split=part, seed=seed, **arguments)  # type: ignore[arg-type]
            feeder.set_epoch(epoch)
            seen.append(feeder.get_batch(range(len(feeder)))[0])
        assert np.array_equal(*seen) is constant


def test_the_whole_list_of_transforms_may_be_said_in_base_args() -> None:
    transforms = [Centre(joint=1), EvenFrames(window=8)]
    said = {"performers": 4, "replications": 1, "only_transforms": True, "transforms": transforms}
    base = "feeders.feeder_demo.Feeder"
    for part in ("train", "test", "exemplar"):
        feeder = Feeder(split=part, novel_classes=[0, 5], base=base, base_args=said)
        assert feeder[0][0].shape == (3, 8, 25, 1)
        assert feeder.description["preprocessing"] == ["centre"]


def test_published_configuration_on_a_store_equals_the_stores_own_split(
    root: Path, tmp_path: Path
) -> None:
    """The NTU RGB+D 120 YAML cuts made-up recordings as the store's index lists do."""
    names = [name for name in _ntu_names() if "P00" in name]
    store = tmp_path / "NTU120.h5"
    random = np.random.default_rng(0)
    sequences = random.standard_normal((len(names), 2, 1, 25, 3)).astype(np.float32)
    ones = np.ones(len(names), dtype=np.int64)
    samples = [parse_name(name) for name in sorted(names)]
    write_store(store, NTU120, samples, 2 * ones, ones, ones > 1, sequences)
    config = meaning(read_layers(root / "config/nturgbd120-oneshot/koopman_oneshot.yaml")[0])
    for part, whole in (("train", "train"), ("test", "test"), ("exemplar", "test")):
        arguments = config[f"{whole}_feeder_args"]
        arguments["base_args"]["data_path"] = str(store)
        feeder = Feeder(**{**arguments, "split": part})
        own = feeder_ntu.Feeder(data_path=store, benchmark="oneshot", split=part, p_interval=[0.95])
        assert sorted(feeder.sample_names) == sorted(own.sample_names)
        if part != "train":
            row = own.sample_names.index(feeder.sample_names[-1])
            np.testing.assert_array_equal(feeder[len(feeder) - 1][0], own[row][0])


@pytest.mark.parametrize("folder", ["nturgbd-oneshot", "nturgbd120-oneshot", "ucla-oneshot"])
def test_configurations_agree_with_themselves(root: Path, folder: str) -> None:
    """Novel classes are the same in training and testing, and the model has the other ones."""
    classes = {"nturgbd-oneshot": 60, "nturgbd120-oneshot": 120, "ucla-oneshot": 10}[folder]
    train, test = (
        meaning(read_layers(root / "config" / folder / f"{name}.yaml")[0])
        for name in ("koopman_oneshot", "koopman_oneshot_test")
    )
    novel = train["train_feeder_args"]["novel_classes"]
    for config in (train, test):
        assert config["test_feeder_args"]["novel_classes"] == novel
        assert config["model_args"]["num_class"] == classes - len(novel)
        assert config["test_feeder_args"] == train["test_feeder_args"]
    rule = train["test_feeder_args"]["exemplars"]
    assert rule == ("first" if folder == "ucla-oneshot" else "ntu")
    assert train["train_feeder_args"].get("exemplars", "first") == rule
    if folder != "ucla-oneshot":
        assert novel == [label for label in PROTOCOL if label < classes]


def test_the_published_feeders_of_nw_ucla_cut_as_this_projects_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_ucla(tmp_path / "sequences")
    aliases = {"training": "feeder_ucla_oneshot", "testing": "feeder_ucla_oneshot_test"}
    made = {
        (use, part): resolve("feeder", f"feeders.{name}.Feeder", ALIASES, ["feeders"]).build(
            {"data_path": "joint", "label_path": part, "repeat": 2, "window_size": 8,
             "root": str(tmp_path / "sequences")}
        )
        for use, name in aliases.items()
        for part in ("train", "val")
    }  # fmt: skip
    sizes = {key: (len(feeder), len(feeder.class_names)) for key, feeder in made.items()}
    assert sizes["training", "train"] == (2 * 6 * 3, 6)  # six classes, three views
    assert sizes["training", "val"] == sizes["testing", "val"] == (2 * 4 * 2, 4)
    assert sizes["testing", "train"] == (2 * 4, 4)
    assert made["testing", "train"].sample_names == made["training", "val"].exemplars.sample_names
