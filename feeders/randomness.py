"""Random numbers as a pure function of (seed, epoch, index).

A sample is augmented the same way whichever process or worker handles it, in whatever order and
batch, and differently in every epoch. Philox (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011) is a block cipher on a counter, so no state has to be carried from sample to
sample: the key is (seed, epoch), the highest word of the counter the index. Two samples' streams
can therefore never overlap, for each has 2**192 blocks of its own.
"""

import operator
from collections.abc import Iterable

import numpy as np

_WORD = (1 << 64) - 1


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of sample ``index`` in ``epoch``.

    All three are integers, taken modulo 2**64 (a negative seed is as good as any other).

    Raises:
        TypeError: an argument is not an integer.
    """
    philox = np.random.Philox(key=_key(seed, epoch), counter=_counter(index))
    return np.random.Generator(philox)


def sample_uniforms(seed: int, epoch: int, indices: Iterable[int], count: int) -> np.ndarray:
    """Draw ``count`` numbers in [0, 1) for each index: float64 (len(indices), count).

    Row i equals ``sample_generator(seed, epoch, indices[i]).random(count)``. One generator is
    moved from counter to counter, which costs a tenth of making a new one for every sample.

    Raises:
        TypeError: ``seed``, ``epoch`` or an index is not an integer.
    """
    rows = list(indices)
    philox = np.random.Philox(key=_key(seed, epoch), counter=_counter(0))
    generator = np.random.Generator(philox)
    fresh = philox.state
    counter = fresh["state"]["counter"]
    uniforms = np.empty((len(rows), count))
    for row, index in zip(uniforms, rows, strict=True):
        counter[3] = _word(index)
        philox.state = fresh
        generator.random(out=row)
    return uniforms


def _key(seed: int, epoch: int) -> np.ndarray:
    return np.array([_word(seed), _word(epoch)], dtype=np.uint64)


def _counter(index: int) -> np.ndarray:
    return np.array([0, 0, 0, _word(index)], dtype=np.uint64)


def _word(value: int) -> int:
    return operator.index(value) & _WORD
