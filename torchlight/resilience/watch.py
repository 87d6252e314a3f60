"""Whether the other processes of a run are still there, and what to do when one is not.

A collective that waits for a dead or stopped process waits in C, where neither Python nor a
signal reaches it, until the process group's own time limit, and then names nobody. So every rank
has two threads: one tells its beat to the launcher's key-value store and reads those of the
others, one judges by them and ends the process. A process that is stopped, swapped out of a
cluster or killed stops beating with all its threads.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed as dist

from torchlight.distributed import World, is_broken_connection
from torchlight.log import NAME

from .signals import AGAIN

RUNNING, WAITING, DONE = "running", "waiting", "done"

_LONGEST_INTERVAL_S = 2.0
_PATIENCE_BEATS = 5
"""Beats that a rank may miss once a connection has broken, or once the run is asked to leave."""


def watched(world: World) -> World:
    """``world`` with a watch over its ranks, on a connection of its own to the launcher's store."""
    if world.control is None:
        return world
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    timeout = timedelta(seconds=world.silence_s)
    watch = Watch(dist.TCPStore(address, port, is_master=False, timeout=timeout), world)
    dist.barrier(group=world.control)  # every rank has beaten once before any rank listens
    watch.start()
    return world.guarded(watch)


class Watch:
    """Beats for this rank and watches the others, from ``start`` to ``stop``.

    A rank that is silent for ``world.silence_s`` ends the run, and so does one that others wait
    for, although it beats, for ``world.timeout_s``.
    """

    def __init__(self, store: dist.Store, world: World) -> None:
        self._store, self._rank, self._size = store, world.rank, world.size
        self._silence_s, self._hang_s = world.silence_s, world.timeout_s
        self._interval = min(_LONGEST_INTERVAL_S, world.silence_s / 5)
        self._keys = [f"{world.attempt}/beat/{rank}" for rank in range(world.size)]
        self._verdict_key = f"{world.attempt}/verdict"
        self._beats = [""] * world.size
        self._heard = [time.monotonic()] * world.size
        self._contact = time.monotonic()
        self._count = 0
        self._state = RUNNING
        self._waits_since: float | None = None
        self._broken: tuple[str, float] | None = None
        self._verdict: str | None = None
        self._asked = False
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._talk, self._judge)]
        self._signals, self._wakeup = socket.socketpair()
        self._signals.setblocking(False)
        self._wakeup.setblocking(False)
        self._wakeup_before = self._wake_by(self._wakeup.fileno())
        self._beat()

    def start(self) -> None:
        """Begin; to be called when every rank has made its watch."""
        for thread in self._threads:
            thread.start()

    def stop(self, last_words: str | None) -> None:
        """End the watch in good order, or tell the others why this rank fails."""
        self._state = DONE
        self._wake_by(self._wakeup_before)
        with contextlib.suppress(RuntimeError):
            if last_words is not None:
                self._store.set(self._verdict_key, f"{self._name(self._rank)} failed: {last_words}")
            self._beat()
        self._ended.set()
        for thread in self._threads:  # one that is in the store when Python ends would abort it
            if thread.is_alive():
                thread.join(self._interval + 1)

    @contextlib.contextmanager
    def collective(self) -> Iterator[None]:
        """Mark that this rank waits for the others; does not return when their connection breaks.

        The process then ends as soon as it is known who is missing.
        """
        self._waits_since, self._state = time.monotonic(), WAITING
        try:
            yield
        except RuntimeError as error:
            if not is_broken_connection(error):
                raise
            self._broken = (str(error).splitlines()[0], time.monotonic())
            threading.Event().wait()  # for _judge to end this process
        finally:
            self._waits_since, self._state = None, RUNNING

    # -- telling and hearing ------------------------------------------------------------------

    @staticmethod
    def _wake_by(descriptor: int) -> int:
        """Have signals written to a socket; return where they were. The main thread alone may."""
        if threading.current_thread() is not threading.main_thread():
            return -1
        return signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)

    def _beat(self) -> None:
        self._count += 1
        self._store.set(self._keys[self._rank], f"{self._count} {self._state} {_host()}")

    def _talk(self) -> None:
        """Beat, and note when each rank was last heard. Errors show as age of the last contact."""
        while not self._ended.wait(self._interval):
            with contextlib.suppress(RuntimeError):
                self._beat()
                beats = [beat.decode() for beat in self._store.multi_get(self._keys)]
                if self._verdict is None and self._store.check([self._verdict_key]):
                    self._verdict = self._store.get(self._verdict_key).decode()
                now = self._contact = time.monotonic()
                for rank, beat in enumerate(beats):
                    if beat != self._beats[rank]:
                        self._beats[rank], self._heard[rank] = beat, now

    # -- judging ------------------------------------------------------------------------------

    def _judge(self) -> None:
        """End this process when another one, or the store, has been lost."""
        last = time.monotonic()
        while not self._ended.wait(self._interval):
            now = time.monotonic()
            late = now - last - self._interval
            if late > self._interval + 1:  # this process itself was held up
                self._contact += late
                self._heard = [heard + late for heard in self._heard]
            last = now
            self._hear_signals()
            found = self._lost(now) or self._hung(now)
            if found is not None and not self._ended.is_set():
                self._die(*found)

    def _lost(self, now: float) -> tuple[str, list[int]] | None:
        """The reason to end because of a rank that failed or is silent, and which ranks are lost.

        The list is empty where another rank has said it already.
        """
        if self._verdict is not None:
            return self._verdict, [r for r in range(self._size) if self._name(r) in self._verdict]
        short = min(_PATIENCE_BEATS * self._interval, self._silence_s)
        patience = short if self._broken or self._asked else self._silence_s
        if now - self._contact > patience:
            return f"rank 0's store has not answered for {now - self._contact:.0f} s", [0]
        # Counted up to the last contact: while the store is silent, so is everybody.
        silence = {r: self._contact - self._heard[r] for r in self._others()}
        silent = [r for r in silence if silence[r] > patience]
        if silent:
            since = max(silence[r] for r in silent)
            return f"{self._names(silent)} has not answered for {since:.0f} s", silent
        if self._broken and now - self._broken[1] > 2 * patience:
            return f"the connection to another rank broke ({self._broken[0]})", []
        return None

    def _hung(self, now: float) -> tuple[str, list[int]] | None:
        waits = self._waits_since
        if waits is None or now - waits < self._hang_s:
            return None
        idle = [r for r in self._others() if f" {WAITING} " not in self._beats[r]]
        if not idle:
            return f"all ranks have waited for one another for {now - waits:.0f} s", []
        return f"{self._names(idle)} has kept the others waiting for {now - waits:.0f} s", idle

    def _hear_signals(self) -> None:
        """Hear of requests to leave, which the main thread cannot while it waits in C."""
        with contextlib.suppress(BlockingIOError):
            for number in self._signals.recv(64):
                if number == signal.SIGINT and self._asked and self._waits_since is not None:
                    os._exit(130)
                self._asked |= number in (signal.SIGINT, signal.SIGTERM)

    def _die(self, why: str, lost: list[int]) -> None:
        """Say why (the lowest rank that is left says it), let the others hear it, and end."""
        survivors = [r for r in range(self._size) if r not in lost]
        if self._rank == min(survivors, default=self._rank):
            line = f"{why}; stopping; {AGAIN} from the last saved state"
            print(f"error: {line}", file=sys.stderr, flush=True)
            logging.getLogger(NAME).info(line)
        if self._verdict is None:  # told in a thread, as the store may be what is lost
            threading.Thread(target=self._tell, args=(why,), daemon=True).start()
            time.sleep(2 * self._interval)  # rank 0 may keep the store that they hear it from
        os._exit(1)

    def _tell(self, why: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._store.set(self._verdict_key, why)

    def _others(self) -> list[int]:
        present = (r for r in range(self._size) if f" {DONE} " not in self._beats[r])
        return [r for r in present if r != self._rank]

    def _names(self, ranks: list[int]) -> str:
        return ", ".join(self._name(rank) for rank in ranks)

    def _name(self, rank: int) -> str:
        host = self._beats[rank].split(" ")[-1] or _host()
        return f"rank {rank} ({host})"


def _host() -> str:
    return socket.gethostname()
