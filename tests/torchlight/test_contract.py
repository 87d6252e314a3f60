"""The contract with datasets: plain ones are taken, others are refused in one line beforehand."""

import numpy as np
import pytest
import torch
import toy

from torchlight.checks import check_model
from torchlight.config import build
from torchlight.contract import prepared
from torchlight.errors import UserError
from torchlight.holdout import open_splits

CONFIG = {"feeder": "toy.Feeder", "model": "toy.Model"}


class Plain:
    """A dataset as a PyTorch tutorial makes it: no names, no list of labels, no index."""

    def __init__(self, n=12, labels=None, inputs=None):
        self.y = np.arange(n) % toy.CLASSES if labels is None else labels
        self.x = np.random.default_rng(0).normal(size=(n, 8)) if inputs is None else inputs

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def having(base=Plain, **attributes):
    """A class like ``base``, with attributes or methods of its own."""
    return type("Own", (base,), attributes)()


def check(dataset, split="train", **config):
    """Prepare a dataset and let the toy model look at it."""
    values = build({**CONFIG, **config}, "test")
    check_model(values, toy.Model(), {split: prepared(split, dataset)})


@pytest.mark.parametrize(
    "sample",
    [
        lambda self, i: (self.x[i], self.y[i]),
        lambda self, i: (self.x[i], int(self.y[i]), i),
        lambda self, i: [torch.tensor(self.x[i], requires_grad=True), torch.tensor(self.y[i])],
        lambda self, i: (torch.tensor(self.x[i]).bfloat16(), torch.tensor([self.y[i]])),
        lambda self, i: (self.x[i].tolist(), float(self.y[i])),
        lambda self, i: ((100 * self.x[i]).astype(np.int16), np.uint8(self.y[i])),
    ],
)
def test_samples_of_any_usual_form_are_taken(sample):
    dataset = having(__getitem__=sample)
    found = prepared("train", dataset)
    assert found.labels.tolist() == [i % 5 for i in range(12)]
    assert found.labels.dtype == np.int64
    inputs, labels, indices = found.get_batch([3, 7])
    assert inputs.shape == (2, 8)
    assert (labels.tolist(), indices.tolist()) == ([3, 2], [3, 7])
    check(dataset)


@pytest.mark.parametrize("name", ["labels", "label", "targets"])
@pytest.mark.parametrize(
    "given", [lambda y: y, list, torch.tensor, lambda y: y[:, None], lambda y: 1.0 * y]
)
def test_labels_are_found_without_reading_a_sample(name, given):
    def unreadable(self, i):
        raise AssertionError

    dataset = having(__getitem__=unreadable, **{name: given(np.arange(12) % 5)})
    assert prepared("train", dataset).labels.tolist() == [i % 5 for i in range(12)]


def test_names_are_found_or_made():
    assert prepared("val", Plain(2)).sample_names == ["val_0", "val_1"]
    names = [f"a{i}" for i in range(12)]
    assert prepared("val", having(sample_name=np.array(names))).sample_names == names
    assert prepared("val", having(sample_names=names)).sample_names == names


def test_each_sample_may_be_seen_several_times():
    def twice(self, i):
        return self.x[i % 6], self.y[i % 6], i

    dataset = prepared("train", having(__getitem__=twice, labels=np.arange(6) % 5))
    assert (len(dataset), len(dataset.sample_names)) == (12, 6)
    assert dataset.get_batch([8])[1].tolist() == [2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-1, "-1"), (0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf"), (2**40, str(2**40))],
)
def test_a_label_that_is_no_class_is_named_with_its_sample(value, shown):
    labels = (np.arange(12) % 5).astype(float if isinstance(value, float) else int)
    labels[7] = value
    for dataset in (Plain(labels=labels), having(labels=labels), having(targets=labels.tolist())):
        with pytest.raises(UserError, match=rf"val_7 \(row 7\) has label {shown}; .* from 0"):
            prepared("val", dataset)


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(12) > 5,
        [str(i % 5) for i in range(12)],
        [None, *range(11)],
        np.eye(12),
        ["wave"] * 12,
    ],
)
def test_labels_of_another_kind_are_refused(labels):
    with pytest.raises(UserError, match=r"train_0 \(row 0\) has label"):
        prepared("train", having(labels=labels))


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (1 + np.arange(12) % 5, "seem to count from 1: say --classes 1 2 3 4 5"),
        (np.array([3, 9, 12, 40, 41] * 2), "say --classes 3 9 12 40 41; .* num_class=42"),
        (np.array([0, 1, 2, 3, 4, 255]), "num_class=256; .* leave such samples out .* 0 1 2 3 4"),
        (np.array([0, 7]), "keep the labels say --model-args num_class=8$"),
    ],
)
def test_labels_that_the_model_has_no_class_for_come_with_advice(labels, advice):
    with pytest.raises(
        UserError, match=r"num_class is 5, but the train split has label.*" + advice
    ):
        check(Plain(len(labels), labels=labels))


def test_many_classes_are_advised_as_a_range():
    class Wide(toy.Model):
        pass

    labels = 1 + np.arange(60)
    datasets = {"train": prepared("train", Plain(60, labels=labels))}
    with pytest.raises(UserError, match=r"--classes \$\(seq 1 60\)"):
        check_model(build(CONFIG, "test"), Wide(num_class=60), datasets)


def _shorter(self, i):
    return self.x[i][: 8 - (i == 9)], self.y[i]


def _broken(self, i):
    return {}[i], self.y[i]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"__getitem__": lambda self, i: self.x[i]}, r"dataset\[0\] is a ndarray, expected \(inp"),
        ({"__getitem__": lambda self, i: {"x": 1}}, "is a dict, expected"),
        ({"__getitem__": lambda self, i: (1, 2, 3, 4)}, "is a tuple of 4, expected"),
        ({"__getitem__": lambda self, i: (self.x[i], 0, "a")}, "expected the index 0"),
        ({"__getitem__": lambda self, i: (["a"], 0)}, "expected numbers"),
        ({"__getitem__": lambda self, i: ([[1], [2, 3]], 0)}, "no array"),
        ({"__getitem__": lambda self, i: (self.x[i] * np.nan, 0)}, "not finite"),
        ({"__getitem__": lambda self, i: (self.x[i, :7], 0)}, r"shape \(7,\), does not fit the mo"),
        ({"__getitem__": _broken}, r"train_0 cannot be read: KeyError: 0 \(.*contract\.py, line "),
        ({"__len__": lambda self: 0}, "no samples"),
        ({"labels": [0, 1, 2, 3, 4]}, r"labels has 5 entries, but len\(dataset\) is 12"),
        ({"labels": np.arange(12)[::-1] % 5}, r"train_0: its label is 1, but dataset\[0\] says 0"),
        ({"sample_names": ["a"] * 12}, "a names several"),
        ({"sample_names": list("abcdef"), "label": [0] * 12}, "label has 12 .* sample_names has 6"),
        ({"subjects": [1]}, "subjects has 1 entries"),
        ({"class_names": ["a", "b"]}, "num_class is 5, but .* 2 class_names"),
        ({"class_names": "abcde"}, "class_names is no list"),
        ({"labels": property(lambda self: 1 / 0)}, "its labels: ZeroDivisionError"),
    ],
)
def test_what_breaks_the_contract_is_one_line(attributes, expected):
    with pytest.raises(UserError, match=expected) as caught:
        check(having(**attributes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["__len__", "__getitem__"])
def test_a_dataset_of_another_style_is_refused(method):
    kind = type("Own", (), {name: getattr(Plain, name) for name in ("__len__", "__getitem__")})
    delattr(kind, method)
    with pytest.raises(UserError, match=f"has no {method}"):
        prepared("train", kind())


def test_the_sample_that_cannot_be_read_is_named_in_mid_epoch():
    dataset = prepared("train", having(__getitem__=_shorter, labels=np.arange(12) % 5))
    with pytest.raises(UserError, match=r"train_9 has shape \(7,\), others \(8,\)"):
        dataset.get_batch([8, 9])
    broken = prepared("train", having(__getitem__=_broken, labels=np.arange(12) % 5))
    with pytest.raises(UserError, match="sample train_4 cannot be read"):
        broken.get_batch([4])


def test_looking_at_a_sample_leaves_the_model_as_it_was():
    model = toy.Model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_model(build(CONFIG, "test"), model, {"train": prepared("train", Plain())})
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def opened(**config):
    """The splits that a configuration of the toy feeder opens."""
    arguments = {"train_feeder_args": {"split": "train"}, "test_feeder_args": {"split": "test"}}
    values = build({**CONFIG, **arguments, **config}, "test")
    return open_splits(values, lambda key, given: toy.Feeder(**given), ("split", "seed", "augment"))


def test_classes_are_numbered_anew_in_all_splits():
    plain, sets = opened(), opened(classes=[4, 1], val_subjects=[3])
    assert set(sets) == {"train", "test", "val"}
    for split, dataset in sets.items():
        whole = plain["train" if split == "val" else split]
        old = dict(zip(whole.sample_names, whole.labels.tolist(), strict=True))
        assert [[4, 1][label] for label in dataset.labels] == [
            old[name] for name in dataset.sample_names
        ]
        assert dataset.class_names == ["4", "1"]
        row = len(dataset) - 1
        inputs, labels, indices = dataset.get_batch([row])
        where = whole.sample_names.index(dataset.sample_names[row])
        assert (labels.tolist(), indices.tolist()) == ([dataset.labels[row]], [row])
        if split != "train":  # which is augmented by the index
            assert np.array_equal(inputs[0], whole.points[where])
    both = [*sets["train"].sample_names, *sets["val"].sample_names]
    assert sorted(both) == sorted(
        name
        for name, label in zip(plain["train"].sample_names, plain["train"].labels, strict=True)
        if label in (1, 4)
    )


@pytest.mark.parametrize(
    ("classes", "expected"),
    [([1, 9], r"no sample of \[9\]; the data have 5 classes from 0 to 4"), ([1, 1], "different")],
)
def test_unknown_or_repeated_classes_are_refused(classes, expected):
    with pytest.raises(UserError, match=expected):
        opened(classes=classes)


def test_class_names_follow_the_classes(monkeypatch):
    monkeypatch.setattr(toy.Feeder, "class_names", list("abcde"), raising=False)
    assert opened(classes=[3, 0])["train"].class_names == ["d", "a"]
    with pytest.raises(UserError, match="7 is none of the 5 class_names"):
        opened(classes=[7, 0], phase="test", weights="w")


def test_num_class_must_be_the_number_of_classes():
    sets, config = opened(classes=[3, 0]), build({**CONFIG, "classes": [3, 0]}, "test")
    with pytest.raises(UserError, match=r"num_class is 5, but classes lists 2; .* num_class=2"):
        check_model(config, toy.Model(), sets)
    check_model(config, toy.Model(num_class=2), sets)


def test_a_held_out_part_needs_two_samples_of_each_class():
    with pytest.raises(UserError, match="class 0 has one training sample"):
        opened(val_fraction=0.5, train_feeder_args={"split": "train", "size": 5})
