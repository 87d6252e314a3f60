"""Random numbers as a pure function of (seed, epoch, index).

A sample is augmented the same way whichever process or worker handles it, in whatever order and
batch, and differently in every epoch. Philox (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011) is a block cipher on a counter: the key is (seed, epoch), the highest word of
the counter the index, so two samples' streams never overlap, for each has 2**192 blocks.
"""

import operator

import numpy as np

_WORD = (1 << 64) - 1


class KeyedGenerator:
    """One generator that is moved from sample to sample, a fifth of the cost of making new ones."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=[0, 0])
        self._generator = np.random.Generator(self._philox)
        self._state = self._philox.state  # as it is before the first number

    def at(self, seed: int, epoch: int, index: int) -> np.random.Generator:
        """The generator at a sample's first number; valid until the next call.

        All three are integers, taken modulo 2**64 (a negative seed is as good as any other).

        Raises:
            TypeError: an argument is not an integer.
        """
        *key, word = (operator.index(value) & _WORD for value in (seed, epoch, index))
        self._state["state"]["key"][:] = key
        self._state["state"]["counter"][:] = 0, 0, 0, word
        self._philox.state = self._state
        return self._generator
