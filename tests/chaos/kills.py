"""Random SIGKILLs over whole chains of training; each must end as the undisturbed one did.

    python tests/chaos/kills.py --kills 100 --seed 1

Half of them on one process; half on two ranks, where in turn both or one of them are killed, and
the rank that is left must end by itself and name the other. States are saved after every step, so
that many of the kills fall into a write.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chaos.chain import Stage, differences, leftovers, stages  # noqa: E402
from chaos.forked import Run  # noqa: E402

KILLS_A_CHAIN = 10


class Chaos:
    """Counts what it does to runs on ``ranks`` processes."""

    def __init__(self, folder: Path, ranks: int, rng: random.Random) -> None:
        self.folder, self.ranks, self.rng = folder, ranks, rng
        self.output = folder / "output.txt"
        self.seconds: dict[str, float] = {}
        self.counts: Counter[str] = Counter()

    def start(self, stage: Stage) -> Run:
        """Start a stage on its ranks."""
        return Run(stage.main, stage.words, self.output, self.ranks if stage.trains else 1)

    def undisturbed(self, folder: Path) -> None:
        """Run the chain once through, and learn how long each stage takes."""
        for stage in stages(folder):
            run = self.start(stage)
            assert set(run.end()) == {0}, self.output.read_text()[-3000:]
            self.seconds[stage.name] = time.monotonic() - run.started

    def disturbed(self, folder: Path, kills: int) -> None:
        """Run the chain to its end, killing it ``kills`` times at random moments."""
        chain = stages(folder)
        shares = self.rng.choices(range(3), weights=(9, 2, 9), k=kills)
        for number, stage in enumerate(chain):
            for _ in range(shares.count(number)):
                self.kill_once(stage)
            assert set(self.start(stage).end()) == {0}, self.output.read_text()[-3000:]

    def kill_once(self, stage: Stage) -> None:
        """Start a stage and kill it at some moment; a stage that is done before counts too."""
        run = self.start(stage)
        if run.wait(self.rng.uniform(0, self.seconds[stage.name])):
            assert set(run.end()) == {0}, self.output.read_text()[-3000:]
            self.counts["kills too late"] += 1
        both = len(run.pids) == 1 or self.rng.random() < 0.5
        victim = None if both else self.rng.randrange(len(run.pids))
        run.kill(victim)
        self.counts["kills of all" if both else "kills of one rank"] += 1
        self.counts["temporary files left by a kill"] += len(leftovers(self.folder))
        killed = time.monotonic()
        statuses = run.end()
        if victim is not None:
            self.counts["longest wait for the other rank, ms"] = max(
                self.counts["longest wait for the other rank, ms"],
                round(1000 * (time.monotonic() - killed)),
            )
            assert statuses[1 - victim] in (0, 1), statuses


def chaos(kills: int, seed: int) -> bool:
    """Do it all, print what was seen, return whether every chain ended as it should."""
    rng, good = random.Random(seed), True
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            chaotic = Chaos(Path(name), ranks, rng)
            chaotic.undisturbed(Path(name) / "undisturbed")
            left, chains = kills // 2, 0
            while left > 0:
                folder = Path(name) / f"disturbed{chains}"
                chaotic.disturbed(folder, min(left, KILLS_A_CHAIN))
                found = differences(Path(name) / "undisturbed", folder) + leftovers(folder)
                print(f"{ranks} ranks, chain {chains}: {found or 'equal'}", flush=True)
                good, left, chains = good and not found, left - KILLS_A_CHAIN, chains + 1
            print(f"{ranks} ranks: {chains} chains; {dict(chaotic.counts)}", flush=True)
            tracebacks = chaotic.output.read_text().count("Traceback")
            print(f"{ranks} ranks: {tracebacks} tracebacks; seconds {chaotic.seconds}", flush=True)
            good = good and tracebacks == 0
    return good


def main(argv: list[str] | None = None) -> int:
    """Return 0 where all chains ended as the undisturbed ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    return 0 if chaos(arguments.kills, arguments.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
