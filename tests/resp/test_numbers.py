"""Client numbers are strict, and INCRBYFLOAT's arithmetic is Redis's to the last digit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respkv.errors import ClientError, NotAFloatError, NotAnIntegerError
from respkv.resp.numbers import INTEGER_MAX, INTEGER_MIN, UNSIGNED_MAX, add_floats, format_float, parse_cursor, parse_float, parse_integer


@given(st.integers(min_value=INTEGER_MIN, max_value=INTEGER_MAX))
def test_integers_come_back(number: int) -> None:
    assert parse_integer(b"%d" % number) == number


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"-",
            b"+1",
            b"01",
            b"-0",
            b"-01",
            b"00",
            b" 1",
            b"1 ",
            b"1\n",
            b"1_0",
            b"1.0",
            b"1e3",
            b"0x1",
            b"abc",
            b"1\0",
            "\N{ARABIC-INDIC DIGIT ONE}".encode(),
        ),
        *(b"9223372036854775808", b"-9223372036854775809", b"99999999999999999999", b"1" * 5000),
    ],
)
def test_no_integers(data: bytes) -> None:
    with pytest.raises(NotAnIntegerError):
        parse_integer(data)


def test_cursors() -> None:
    assert parse_cursor(b"0") == 0
    assert parse_cursor(b"18446744073709551615") == UNSIGNED_MAX
    assert [parse_cursor(data) for data in (b"", b"+1", b"-1", b"-18446744073709551615", b"0" * 5000 + b"7")] == [0, 1, UNSIGNED_MAX, 1, 7]
    for data in (b"abc", b"-", b"1_0", b" 1", b"1\n", b"18446744073709551616", b"-18446744073709551616", b"9" * 5000):
        with pytest.raises(ClientError, match=r"^invalid cursor$"):
            parse_cursor(data)


NOT_A_FLOAT = b"-ERR value is not a valid float"
INFINITE = b"-ERR increment would produce NaN or Infinity"

# (value, increment, reply) of INCRBYFLOAT, recorded from redis-server 7.0.15 on x86-64.
RECORDED = [
    (b"0", b"1e-4950", b"0"),
    (b"0", b"3.6e-4951", b"0"),
    (b"0", b"0e99999999999999999999", b"0"),
    (b"0", b"+5", b"5"),
    (b"0", b"+.5", b"0.5"),
    (b"0", b"5.", b"5"),
    (b"0", b"1e5", b"100000"),
    (b"0", b"1E5", b"100000"),
    (b"0", b"-0", b"0"),
    (b"0", b"-5e-18", b"0"),
    (b"0", b"4.9e-18", b"0"),
    (b"0", b"1e-17", b"0.00000000000000001"),
    (b"0", b"1e19", b"10000000000000000000"),
    (b"0", b"12345678901234567890123", b"12345678901234567889920"),
    (b"0", b"3.0e3", b"3000"),
    (b"0", b"1e-4951", NOT_A_FLOAT),
    (b"0", b"1e-5000", NOT_A_FLOAT),
    (b"0", b"1e999999999", NOT_A_FLOAT),
    (b"0", b"1e-999999999", NOT_A_FLOAT),
    (b"0", b"1.2e4932", NOT_A_FLOAT),
    (b"0", b"1e", NOT_A_FLOAT),
    (b"0", b".", NOT_A_FLOAT),
    (b"0", b"", NOT_A_FLOAT),
    (b"0", b"e5", NOT_A_FLOAT),
    (b"0", b"1_0", NOT_A_FLOAT),
    (b"0", b" 1", NOT_A_FLOAT),
    (b"0", b"1 ", NOT_A_FLOAT),
    (b"0", b"nan", NOT_A_FLOAT),
    (b"0", b"nan(1)", NOT_A_FLOAT),
    (b"0", b"infin", NOT_A_FLOAT),
    (b"0", b"inf", INFINITE),
    (b"0", b"-inf", INFINITE),
    (b"0", b"+INF", INFINITE),
    (b"0", b"Infinity", INFINITE),
    (b"0.1", b"0.2", b"0.3"),
    (b"10.5", b"0.1", b"10.6"),
    (b"1234567890.1", b"0.1", b"1234567890.19999999995343387"),
    (b"-1234567890.1", b"-0.1", b"-1234567890.19999999995343387"),
    (b"5.0e3", b"2.0e2", b"5200"),
    (b"1e100", b"1", b"9999999999999999999669353532207342619498699019828496079271391541752018669482644324418977840117055488"),
    (b"-1.5", b"1.5", b"0"),
    (b"9007199254740993", b"0", b"9007199254740993"),
    (b"18446744073709551615", b"0.5", b"18446744073709551616"),
    (b"18446744073709551617", b"0", b"18446744073709551616"),
    (b"0.3", b"-0.1", b"0.2"),
    (b"0.000000000000000015", b"0", b"0.00000000000000002"),
    (b"0.000000000000000025", b"0", b"0.00000000000000002"),
    (b"abc", b"inf", NOT_A_FLOAT),
    (b"inf", b"abc", NOT_A_FLOAT),
    (b"inf", b"-inf", INFINITE),
    (b"1.1897e4932", b"1.1897e4932", INFINITE),
    (b"3.14159265358979323846", b"2.71828182845904523536", b"5.85987448204883847"),
    (b"123456.789", b"0.001", b"123456.78999999999999915"),
    (b"-0.1", b"-0.2", b"-0.3"),
]


@pytest.mark.parametrize(("value", "increment", "reply"), RECORDED)
def test_sums_are_those_of_redis(value: bytes, increment: bytes, reply: bytes) -> None:
    try:
        outcome = format_float(add_floats(parse_float(value), parse_float(increment)))
    except ClientError as refusal:
        outcome = refusal.reply().removesuffix(b"\r\n")
    assert outcome == reply


def test_hexadecimal_is_refused_unlike_in_redis() -> None:
    for data in (b"0x10", b"0x1p3"):
        with pytest.raises(NotAFloatError):
            parse_float(data)


def test_long_texts() -> None:
    assert format_float(add_floats(parse_float(b"0." + b"1" * 5117), parse_float(b"0"))) == b"0.11111111111111111"
    with pytest.raises(NotAFloatError):
        parse_float(b"0." + b"1" * 5118)
    # More digits than int() and str() take; as long as Redis's answer, which begins with 118.
    assert len(format_float(add_floats(parse_float(b"1.18e4932"), parse_float(b"0")))) == 4933


@given(st.floats(min_value=-1e15, max_value=1e15).map(lambda number: round(number, 3)))
def test_a_float_of_few_digits_comes_back(number: float) -> None:
    parsed = parse_float(b"%.3f" % number)
    assert float(parsed) == number
    assert float(format_float(add_floats(parsed, parse_float(b"0")))) == number
