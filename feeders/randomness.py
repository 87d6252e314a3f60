"""Random numbers as a pure function of (seed, epoch, index).

A sample is augmented the same way whichever process or worker handles it, in whatever order and
batch, and differently in every epoch. Philox (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011) is a block cipher on a counter: the key is (seed, epoch), the highest word of
the counter the index, so two samples' streams never overlap, for each has 2**192 blocks.
"""

import operator

import numpy as np

_WORD = (1 << 64) - 1


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return a new generator of sample ``index`` in ``epoch``.

    All three are integers, taken modulo 2**64 (a negative seed is as good as any other).

    Raises:
        TypeError: an argument is not an integer.
    """
    key, counter = (np.array(words, dtype=np.uint64) for words in _place(seed, epoch, index))
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class KeyedGenerator:
    """One generator that is moved from sample to sample, a tenth of the cost of making new ones."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=[0, 0])
        self._generator = np.random.Generator(self._philox)
        self._state = self._philox.state  # as it is before the first number

    def at(self, seed: int, epoch: int, index: int) -> np.random.Generator:
        """The generator, placed as ``sample_generator(seed, epoch, index)``; valid until the next.

        Raises:
            TypeError: an argument is not an integer.
        """
        key, counter = _place(seed, epoch, index)
        self._state["state"]["key"][:] = key
        self._state["state"]["counter"][:] = counter
        self._philox.state = self._state
        return self._generator


def _place(seed: int, epoch: int, index: int) -> tuple[list[int], list[int]]:
    """Key and counter."""
    words = [operator.index(value) & _WORD for value in (seed, epoch, index)]
    return words[:2], [0, 0, 0, words[2]]
