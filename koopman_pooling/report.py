"""The page of a run, with its clips and operators, and ``--phase report``, which writes it.

    python main_multigpu.py --phase report --work-dir W

The clips are those of the test split, where its data can be reached.
"""

from collections.abc import Callable, Sequence
from typing import Any

from feeders.transforms import HOMES
from model.published import ALIASES
from torchlight.callbacks import Run
from torchlight.cli import Parser
from torchlight.errors import UserError
from torchlight.files import path_argument
from torchlight.registry import resolve, with_each_built

_PATIENCE_S = 2.0  # for eigenvalues, at the end of a run


def attach(run: Run) -> Run:
    """Have the page of a run show clips and operators."""
    for callback in run.callbacks:
        if hasattr(callback, "sections"):  # torchlight.reports, a wing that may be out
            callback.sections = _sections(lambda past: run.sets["test"], _PATIENCE_S)
    return run


def _sections(dataset_of: Callable[[Any], Any], patience_s: float) -> dict[str, Any]:
    """What is drawn, by its heading; imported where it is drawn, as that takes a second."""

    def operators(past: Any, found: Any) -> str:
        from koopman_pooling import sections

        return sections.operators(past, found, patience_s)

    def clips(past: Any, found: Any) -> str:
        from koopman_pooling import sections

        return sections.clips(found, dataset_of(past))

    return {"Operators": operators, "Clips of the worst confusions": clips}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page of a work dir; return 0."""
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

    def test_set(past: Any) -> Any:
        key, allowed = "test_feeder_args", ("feeders", "model", *given.allow_import)
        feeder = resolve("feeder", past.config["feeder"], ALIASES, allowed)
        return feeder.build(with_each_built(key, past.config.get(key, {}), HOMES, allowed))

    page = write_page(given.work_dir, _sections(test_set, patience_s=60))
    print(f"wrote {page}")
    return 0
