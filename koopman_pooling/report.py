"""The page of a run, with its clips and operators, and ``--phase report``, which writes it.

    python main_multigpu.py --phase report --work-dir W

The clips are those of the test split, where its data can be reached.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from feeders.transforms import HOMES
from model.published import ALIASES
from torchlight.callbacks import Run
from torchlight.cli import Parser
from torchlight.errors import UserError
from torchlight.files import path_argument
from torchlight.registry import resolve, with_each_built
from torchlight.reports import Reports

_PATIENCE_S = 2.0  # for eigenvalues, at the end of a run


def attach(run: Run) -> Run:
    """Have the page of a run show clips and operators."""
    for callback in run.callbacks:
        if isinstance(callback, Reports):
            callback.sections = [partial(_sections, dataset=run.sets["test"])]
    return run


def _sections(run: Any, found: Any, dataset: Any) -> Iterator[Any]:
    from koopman_pooling import sections  # a second, which only the end of a run needs

    yield from sections.operators(run, found, patience_s=_PATIENCE_S)
    yield from sections.clips(run, found, dataset)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page of a work dir; return 0."""
    from koopman_pooling.sections import operators
    from torchlight.reports.page import write_page

    parser = Parser(prog="main_multigpu.py --phase report", description=__doc__)
    parser.add_argument("--phase", required=True)
    parser.add_argument("--work-dir", type=path_argument, required=True, metavar="W")
    parser.add_argument(
        "--allow-import", nargs="+", default=[], metavar="PACKAGE", help="that the data are of"
    )
    given = parser.parse_args(argv)
    if not given.work_dir.is_dir():
        raise UserError(f"--work-dir {given.work_dir}: no such folder")
    allowed = ("feeders", "model", *given.allow_import)
    page = write_page(given.work_dir, [operators, partial(_reached_clips, allowed=allowed)])
    print(f"wrote {page}")
    return 0


def _reached_clips(run: Any, found: Any, allowed: Sequence[str]) -> Iterator[Any]:
    """The clips by the dataset that the configuration names.

    Raises:
        Exception: its data cannot be reached.
    """
    from koopman_pooling.sections import clips

    key, name = "test_feeder_args", run.config["feeder"]
    arguments = with_each_built(key, run.config.get(key, {}), HOMES, allowed)
    yield from clips(run, found, resolve("feeder", name, ALIASES, allowed).build(arguments))
