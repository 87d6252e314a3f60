"""Read thousands of damaged files, each in a process of its own, and count what becomes of them.

    python tests/fuzz/harness.py --count 5000 --seed 0
    python tests/fuzz/harness.py --kind store --only 17       (one input, its error shown)

An input is accepted, or refused by one line that names the file, or it is a failure: any other
exception, a message of several lines or with control characters, a crash, more than 5 seconds,
more than 1 GB of memory.
"""

import argparse
import collections
import json
import math
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from fuzz.mutations import fingerprint, mutate  # noqa: E402
from fuzz.readers import READERS, REFUSALS, names_the_file  # noqa: E402
from fuzz.seeds import Seed, make_seeds  # noqa: E402

SECONDS = 5.0  # of the processor
PATIENCE = 300.0  # by the clock, where other work on the machine takes the processor
GIGABYTE = 1 << 30
SPECIAL = ("directory", "fifo", "missing", "loop", "endless", "sparse")
"""What may lie in a file's place: no file at all, or one that never ends."""


def read_one(kind: str, path: Path, folder: Path) -> str:
    """What becomes of one file, in a child process: "accepted", "refused ..." or "FAILURE ..."."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, _verdict(kind, path, folder).encode("utf-8", "replace")[:60_000])
        os._exit(0)
    os.close(writing)
    answer, hangs = b"", False
    started = time.monotonic()
    while not hangs:
        if not select.select([reading], [], [], 1.0)[0]:
            hangs = _hangs(child, time.monotonic() - started)
        elif part := os.read(reading, 65_536):
            answer += part
        else:
            break
    if hangs:
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    if hangs or seconds > SECONDS:
        return f"FAILURE: no answer, or late, after {seconds:.1f} s of work"
    if status or not answer:
        return f"FAILURE: ended by signal {os.WTERMSIG(status)}"
    return answer.decode()


def _hangs(child: int, waited: float) -> bool:
    """Whether a child works too long, or waits for something; not one that the others starve."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    worked = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return worked > SECONDS or (waited > SECONDS and fields[0] == "S") or waited > PATIENCE


def _verdict(kind: str, path: Path, folder: Path) -> str:
    limit = 6 * GIGABYTE  # of address space, so that a bomb does not take the machine down
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    warnings.simplefilter("ignore")
    try:
        READERS[kind](path, folder)
        verdict = "accepted"
    except REFUSALS as error:
        verdict = _refusal(kind, path, folder, str(error))
    except BaseException:
        verdict = f"FAILURE: {traceback.format_exc()}"
    if (peak := _peak_memory()) > GIGABYTE:
        return f"FAILURE: {peak >> 20} MiB of memory ({verdict[:200]})"
    return verdict


def _refusal(kind: str, path: Path, folder: Path, message: str) -> str:
    if not message.isprintable():
        return f"FAILURE: not one printable line: {message!r}"
    if not names_the_file(kind, path, folder, message):
        return f"FAILURE: does not name the file: {message}"
    return f"refused: {message}"


def _peak_memory() -> int:
    """The largest resident size of this process since it was forked, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def put(place: Path, what: str, content: bytes) -> None:
    """Lay damaged content, or something that is no plain file, at ``place``."""
    if what == "directory":
        place.mkdir()
    elif what == "fifo":
        os.mkfifo(place)
    elif what == "loop":
        place.symlink_to(place.name)
    elif what == "endless":
        place.symlink_to("/dev/zero")
    elif what == "sparse":
        with place.open("wb") as file:
            file.write(content[:1000])
            file.truncate(40 * GIGABYTE)
    elif what != "missing":
        place.write_bytes(content)


def run(
    kinds: Sequence[str],
    count: int,
    seed: int,
    only: int | None = None,
    seconds: float = math.inf,
) -> dict[str, collections.Counter]:
    """Read ``count`` damaged files spread over the kinds; print failures, return the verdicts."""
    torch.set_num_threads(1)
    counts: dict[str, collections.Counter] = {kind: collections.Counter() for kind in kinds}
    ended = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        found = make_seeds(scratch)
        for kind in kinds:
            counts[kind]["FAILURE"] += _refused_sound_files(kind, found[kind], scratch)
        for number in range(-(-count // len(kinds))) if only is None else [only]:
            for kind in kinds[: count - number * len(kinds)] if only is None else kinds:
                if time.monotonic() > ended:
                    return counts
                what, verdict = _read_number(kind, found[kind], number, seed, scratch)
                word = verdict.split(":")[0]
                counts[kind][word] += 1
                if word == "FAILURE" or only is not None:
                    print(f"--- {kind} --only {number} ({what})\n{verdict}", flush=True)
    return counts


def _refused_sound_files(kind: str, seeds: Sequence[Seed], scratch: Path) -> int:
    """How many sound files a reader does not accept; they are printed."""
    refused = 0
    for seed in seeds:
        if seed.sound:
            verdict = _read_content(kind, seed.name, "sound", seed.data, scratch)
            if verdict != "accepted":
                print(f"--- {kind}: sound {seed.name}\n{verdict}", flush=True)
                refused += 1
    return refused


def _read_number(
    kind: str, sound: Sequence[Seed], number: int, seed: int, scratch: Path
) -> tuple[str, str]:
    """Input ``number`` of a kind: its damage and its verdict."""
    chosen = sound[number % len(sound)]
    content = chosen.data
    if number < len(SPECIAL):
        what = SPECIAL[number]
    else:
        what, content = mutate(kind, content, f"{seed} {kind} {number}")
    verdict = _read_content(kind, chosen.name, what, content, scratch)
    return f"{what}, {chosen.name}, {len(content)} bytes, crc {fingerprint(content):08x}", verdict


def _read_content(kind: str, name: str, what: str, content: bytes, scratch: Path) -> str:
    """The verdict on one input, laid in a folder of its own."""
    place, own = scratch / "input", scratch / "own"
    place.mkdir()
    own.mkdir()
    put(place / name, what, content)
    verdict = read_one(kind, place / name, own)
    shutil.rmtree(place)
    shutil.rmtree(own)
    return verdict


def table(counts: dict[str, collections.Counter]) -> str:
    """The counts for people to read."""
    lines = [f"{'parser':16} {'inputs':>7} {'accepted':>9} {'refused':>8} {'failures':>9}"]
    total: collections.Counter = collections.Counter()
    for kind, found in [*counts.items(), ("all", total)]:
        words = (found[word] for word in ("accepted", "refused", "FAILURE"))
        lines.append("{:16} {:7} {:9} {:8} {:9}".format(kind, found.total(), *words))
        total.update(found)
    return "\n".join(lines)


def main() -> int:
    """Run the command line; 1 if an input was a failure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="damaged files, over all parsers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=READERS, help="this parser only")
    parser.add_argument("--only", type=int, help="this input only, its verdict printed")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--json", type=Path, help="also write the counts there")
    args = parser.parse_args()
    started = time.monotonic()
    kinds = [args.kind] if args.kind else list(READERS)
    counts = run(kinds, args.count, args.seed, args.only, args.seconds)
    print(table(counts))
    print(f"{time.monotonic() - started:.0f} s, seed {args.seed}")
    if args.json:
        args.json.write_text(json.dumps(counts))
    return int(any(found["FAILURE"] for found in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
