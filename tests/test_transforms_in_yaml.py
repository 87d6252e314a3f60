"""Transforms named in a configuration reach the feeder, one's own among them."""

import textwrap

import numpy as np
import pytest
import yaml
from toy_ucla import write_ucla

import main_multigpu
from torchlight.loading import Loader

OWN = """
    import numpy as np

    class Mark:
        def __init__(self, *, value: float):
            self.value = value
        def __call__(self, x, rng):
            return np.full_like(x, self.value)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs with some transforms in training; gives status and what was loaded."""
    write_ucla(tmp_path / "data")
    (tmp_path / "marking.py").write_text(textwrap.dedent(OWN))
    monkeypatch.chdir(tmp_path)
    seen = []
    epoch = Loader.epoch
    monkeypatch.setattr(
        Loader,
        "epoch",
        lambda self, *args: (seen.append(b[0]) or b for b in epoch(self, *args)),
    )

    def call(transforms, **more):
        data = {"data_path": "joint", "root": str(tmp_path / "data")}
        config = {
            "feeder": "feeders.feeder_ucla.Feeder",
            "model": "model.classifier.Model",
            "train_feeder_args": {**data, "repeat": 1, "transforms": transforms, **more},
            "test_feeder_args": data,
            "model_args": {
                **{"num_class": 10, "num_point": 20, "num_person": 1, "channels": [8, 16]},
                **{"graph": "model.graph.Graph", "graph_args": {"skeleton": "ucla"}},
            },
            **{"num_epoch": 1, "num_worker": 0},
            **{"batch_size": 4, "global_batch_size": 4, "work_dir": str(tmp_path / "w")},
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
        words = ["--config", str(tmp_path / "run.yaml"), "--allow-import", "marking", "--overwrite"]
        return main_multigpu.main(words), seen

    return call


def test_own_and_named_transforms_are_applied_in_order(run):
    status, seen = run([{"name": "marking.Mark", "value": 2.5}, {"name": "DropAxis", "p": 1.0}])
    assert status == 0
    x = np.concatenate([np.asarray(batch) for batch in seen])
    assert set(np.unique(x).tolist()) == {0.0, 2.5}
    assert ((x == 0).all(axis=(2, 3, 4)).sum(axis=1) == 1).all()


def test_the_list_may_be_whole_and_testing_must_agree_in_its_preprocessing(run, capsys):
    frames = {"name": "EvenFrames", "window": 52}
    assert run(["Centre", "UnitBox", frames], only_transforms=True)[0] == 0
    assert run(["Centre", frames], only_transforms=True)[0] == 2
    error = capsys.readouterr().err
    assert "preprocessing" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("one", [{"name": "marking.Mark", "value": 2.5}, "Centre"])
def test_one_alone_may_do_without_the_list(run, one):
    assert run(one)[0] == 0


@pytest.mark.parametrize(
    ("transforms", "said"),
    [
        (["Miror"], 'has no class "Miror" (did you mean "Mirror"?)'),
        ([{"name": "Mirror", "skeleton": "ucla", "q": 1}], "transforms[0].q: "),
        ([{"p": 1.0}], "neither a name nor name and arguments"),
        ([{"name": "os.path.join"}], "outside of the allowed packages"),
        ([{"name": "Mirror", "skeleton": "dog"}], "skeleton 'dog' is not one of"),
    ],
)
def test_a_wrong_one_is_named_in_one_line(run, capsys, transforms, said):
    assert run(transforms)[0] == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
