"""Numbers as clients send them, and nothing that Python would also let pass (`1_0`, blanks, other alphabets).

`parse_float`, `add_floats` and `format_float` are INCRBYFLOAT's arithmetic. Redis does it in C's `long double`, which
is 64 bits of mantissa where Redis is mostly run, and what it prints shows it (1234567890.1 + 0.1 is
1234567890.19999999995343387). Here the same is done exactly, on fractions that are rounded to 64 bits.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

from respkv.errors import ClientError, NotAFloatError, NotAnIntegerError

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
UNSIGNED_MAX = 2**64 - 1

LongDouble = Fraction | float
"""A number that a long double can hold; a `float` only for the two infinities."""

_MANTISSA_BITS = 64
_EXPONENT_MIN = -16445  # of the smallest subnormal number, as a power of two
_OVERFLOW = Fraction(2) ** 16384
_FLOAT_TEXT_MAX = 5 * 1024 - 1
_DECIMALS = 17

_is_integer = re.compile(rb"0|-?[1-9][0-9]{0,18}").fullmatch
_is_cursor = re.compile(rb"(?:([+-])?0*([0-9]{1,20}))?").fullmatch
_is_float = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?0*([0-9]+))?").fullmatch
_is_infinity = re.compile(rb"([+-]?)inf(?:inity)?", re.IGNORECASE).fullmatch


def parse_integer(data: bytes) -> int:
    """A 64-bit integer, written in the one way in which Redis writes it: no plus, no leading zero, no `-0`."""
    if not _is_integer(data):
        raise NotAnIntegerError
    number = int(data)
    if not INTEGER_MIN <= number <= INTEGER_MAX:
        raise NotAnIntegerError
    return number


def parse_cursor(data: bytes) -> int:
    """A cursor of SCAN: an unsigned 64-bit integer, as C's strtoul reads it in Redis 7.2 (of nothing it makes 0, of -1 the greatest)."""
    shape = _is_cursor(data)
    if shape:
        cursor = int(shape[2] or 0)
        if cursor <= UNSIGNED_MAX:
            return -cursor & UNSIGNED_MAX if shape[1] == b"-" else cursor
    raise ClientError("invalid cursor")


def parse_float(data: bytes) -> LongDouble:
    """A decimal number or an infinity, rounded to what a long double can hold.

    C's hexadecimal notation (`0x1p3`), which Redis lets pass, is refused.
    """
    if len(data) > _FLOAT_TEXT_MAX:
        raise NotAFloatError
    if infinity := _is_infinity(data):
        return -math.inf if infinity[1] == b"-" else math.inf
    shape = _is_float(data)
    if not shape:
        raise NotAFloatError
    # 1e999999999 is a short text and a long integer: look at its exponent before making it one.
    if len(shape[1] or b"") > 4:
        if _mantissa_is_zero(data):
            return Fraction(0)
        raise NotAFloatError
    exact = Fraction(Decimal(data.decode("ascii")))
    number = _rounded(exact)
    if isinstance(number, float) or (exact and not number):
        raise NotAFloatError
    return number


def add_floats(left: LongDouble, right: LongDouble) -> Fraction:
    """The sum, rounded again; only a finite one is a value that can be stored."""
    if not isinstance(left, float) and not isinstance(right, float):
        total = _rounded(left + right)
        if not isinstance(total, float):
            return total
    raise ClientError("increment would produce NaN or Infinity")


def format_float(number: Fraction) -> bytes:
    """As Redis prints it: 17 decimals, then without trailing zeros; never an exponent, never `-0`."""
    # By way of Decimal, because int refuses to print more than 4300 digits.
    digits = str(Decimal(abs(round(number * 10**_DECIMALS)))).rjust(_DECIMALS + 1, "0")
    text = f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}".rstrip("0").rstrip(".")
    return f"-{text}".encode() if number < 0 and text != "0" else text.encode()


def _mantissa_is_zero(data: bytes) -> bool:
    return not data.lower().partition(b"e")[0].strip(b"+-0.")


def _rounded(number: Fraction) -> LongDouble:
    """The nearest long double, ties to even."""
    if not number:
        return number
    numerator, denominator = abs(number.numerator), number.denominator
    # The place of the first bit, which the lengths give to within one.
    exponent = numerator.bit_length() - denominator.bit_length()
    if abs(number) < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - _MANTISSA_BITS + 1, _EXPONENT_MIN)
    nearest = round(number / unit) * unit
    if abs(nearest) >= _OVERFLOW:
        return math.inf if number > 0 else -math.inf
    return nearest
