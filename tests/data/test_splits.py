"""Split rules against the data sets' published counts, and names."""

import itertools

import pytest

from data.errors import DataError
from data.splits import NOVEL_ACTIONS, NTU60, NTU120, parse_name, split_rows


@pytest.mark.parametrize(
    "name",
    [
        "walking_front_01",
        "S001C001P001R001A121",
        "S001C001P001R001A000",
        "S033C001P001R001A001",
        "S001C004P001R001A001",
        "S001C001P001R001A001x",
        "S001C001P001R001A٠٠1",
        "",
    ],
)
def test_impossible_names_are_refused(name):
    with pytest.raises(DataError):
        parse_name(name)


def test_labels_use_all_three_digits():
    assert parse_name("S018C001P008R001A120").label == 119


def test_subject_counts():
    for dataset, subjects, expected in ((NTU60, 40, 20), (NTU120, 106, 53)):
        split_of = dataset.benchmarks["xsub"].split_of
        names = [parse_name(f"S001C001P{p:03d}R001A001") for p in range(1, subjects + 1)]
        assert sum(split_of(name) == "train" for name in names) == expected


def test_every_sample_is_in_exactly_one_split():
    samples = [
        parse_name(f"S{s:03d}C{c:03d}P{p:03d}R001A{a:03d}")
        for s, c, p, a in itertools.product((1, 18), (1, 2, 3), (3, 8), range(1, 121, 2))
    ]
    for dataset in (NTU60, NTU120):
        for benchmark in dataset.benchmarks.values():
            rows = split_rows(benchmark, samples)
            assert sorted(r for chosen in rows.values() for r in chosen) == list(
                range(len(samples))
            )


def test_one_shot():
    assert len(NOVEL_ACTIONS) == 20
    assert NOVEL_ACTIONS[-1] == 115
    exemplars = [f"S001C003P008R001A{a:03d}" for a in range(1, 56, 6)]
    exemplars += [f"S018C003P008R001A{a:03d}" for a in range(61, 116, 6)]
    split_of = NTU120.benchmarks["oneshot"].split_of
    assert {split_of(parse_name(name)) for name in exemplars} == {"exemplar"}
    assert split_of(parse_name("S002C003P008R001A001")) == "test"
    assert split_of(parse_name("S018C003P008R001A001")) == "test"
    assert split_of(parse_name("S001C003P008R001A002")) == "train"
