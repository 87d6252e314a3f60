"""Write the demo data as raw NTU RGB+D recordings: ``python -m data.demo --out FOLDER``."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from data.demo import describe, perform, samples
from data.demo.raw import write_skeleton_file
from data.errors import DataError
from data.splits import EXEMPLARS, NOVEL_ACTIONS, SampleName, parse_name
from torchlight.files import path_argument, print_any_text
from torchlight.terminal import Parser


def write_raw(
    folder: Path, wanted: Iterable[SampleName], *, seed: int = 0, second_body: float = 0.0
) -> None:
    """Write samples under ``folder``, setups from 18 on in a folder of their own."""
    for sample in wanted:
        part = "nturgb+d_skeletons" if sample.setup <= 17 else "nturgb+d_skeletons120"
        (folder / part).mkdir(parents=True, exist_ok=True)
        joints = perform(sample, seed=seed, second_body=second_body)
        write_skeleton_file(folder / part / f"{sample.name}.skeleton", joints)


def main(argv: list[str] | None = None) -> int:
    """Write raw files; return the exit status."""
    parser = Parser(
        prog="python -m data.demo",
        description="Write made-up people doing simple actions as raw NTU RGB+D recordings.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=path_argument, required=True, help="folder to write to")
    add("--actions", type=int, default=8, help="classes, up to 120")
    add("--action-ids", type=int, nargs="+", metavar="ID", help="these instead")
    add(
        "--exemplars",
        action="store_true",
        help="also the 20 novel actions of NTU RGB+D 120's one-shot protocol, with its exemplars",
    )
    add("--performers", type=int, default=20, help="people")
    add("--cameras", type=int, default=3, help="views, up to 3")
    add("--replications", type=int, default=2, help="takes")
    add("--second-body", type=float, default=0.1, help="share of clips with two")
    add("--limit", type=int, help="write only the first this many")
    add("--seed", type=int, default=0, help="of all random numbers")
    args = parser.parse_args(argv)
    print_any_text()
    actions = args.action_ids or range(1, args.actions + 1)
    try:
        wanted = samples(
            actions=[*actions, *(NOVEL_ACTIONS if args.exemplars else ())],
            performers=args.performers,
            cameras=args.cameras,
            replications=args.replications,
        )[: args.limit]
        if args.exemplars:
            named = {parse_name(name) for name in EXEMPLARS}
            wanted = sorted({*wanted, *named}, key=lambda sample: sample.name)
        write_raw(args.out, wanted, seed=args.seed, second_body=args.second_body)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    classes = ", ".join(describe(action) for action in sorted({s.action for s in wanted}))
    print(f"wrote {len(wanted)} files under {args.out}; actions: {classes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
