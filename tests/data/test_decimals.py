"""Decimal numbers in bulk equal ``float``, token by token, to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.preparation.decimals import is_number, parse_decimals

PLAIN = st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{0,9})?", fullmatch=True)
ANY = st.from_regex(
    r"[+-]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?", fullmatch=True
)


def parse(tokens):
    text = " ".join(tokens).encode()
    ends = np.cumsum([len(token) + 1 for token in tokens]) - 1
    return parse_decimals(text, ends - [len(token) for token in tokens], ends)


@settings(max_examples=300, deadline=None)
@given(st.lists(PLAIN | ANY, min_size=1, max_size=40))
def test_equals_float_bit_for_bit(tokens):
    expected = np.array([float(token) for token in tokens])
    assert parse(tokens).tobytes() == expected.tobytes()


def test_recorder_formats():
    random = np.random.default_rng(0)
    values = random.normal(0, 3, 20_000) * 10.0 ** random.integers(-6, 6, 20_000)
    for form in ("%.7g", "%.9g", "%.6f", "%.12f", "%.16g"):
        tokens = [form % value for value in values]
        assert parse(tokens).tobytes() == np.array([float(t) for t in tokens]).tobytes()


@pytest.mark.parametrize(
    "token",
    [
        "0.12abc",
        "0,1234",
        "nan",
        "-inf",
        "1_0",
        "",
        ".",
        "-",
        "1.2.3",
        "1-2",
        "--1",
        "0x10",
        "1e",
        "\x8a.5",
        "1234567.8901234.5",
    ],
)
def test_refuses_what_is_no_decimal_number(token):
    assert not is_number(token.encode("latin-1"))
    with pytest.raises(ValueError, match="not a decimal"):
        parse_decimals(
            b"1.5 " + token.encode("latin-1") + b" ",
            np.array([0, 4]),
            np.array([3, 4 + len(token)]),
        )


@pytest.mark.parametrize("dot", range(17))
@pytest.mark.parametrize("digits", ["1234567890123456", "0000000000000001", "9007199254740993"])
def test_a_dot_anywhere_in_every_length(dot, digits):
    dotted = digits[:dot] + "." + digits[dot:]
    tokens = [sign + dotted[i:j] for sign in ("", "-") for i in range(16) for j in range(i, 18)]
    tokens = [token for token in tokens if is_number(token.encode())]
    assert parse(tokens).tobytes() == np.array([float(token) for token in tokens]).tobytes()


def test_no_token_gives_no_number():
    assert len(parse_decimals(b"", np.empty(0, np.int64), np.empty(0, np.int64))) == 0
