"""How close is equal? Values that carry an a-priori bound on the rounding error of any sound way to compute them.

One rounding gives ``fl(a op b) = (a op b)(1 + d) + e`` with ``|d| <= u`` and, only where the result is subnormal,
``|e| <= eta``. It follows that ``|fl(x·y) - x·y| <= gamma_n |x|·|y|`` with ``gamma_n = n u / (1 - n u)`` for a sum of products in
any order, with fused multiply-adds or without (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2.2 and 3.1;
"running error analysis" is his 3.3).

:class:`Bounded` does that bookkeeping elementwise: the reference writes a formula once, in higher precision, and gets the value
and the bound together. The bound is computed from the inputs alone, so no result can influence it.

A bound of inf means that nothing is promised: an intermediate value may overflow, or a divisor may be zero.
Where the *value* is NaN or inf although no step may overflow, an implementation must give that very NaN or inf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# The error of exp, log and pow, in units of u. NumPy states 4 ulp for its vectorised float32 log; glibc's and SLEEF's stay
# below 1.
FUNCTION = 8

# A whole network's error may be this many times torch's own float32 error: test_networks.py has the reasons.
FACTOR = 4


@dataclass(frozen=True)
class Rounding:
    """The rounding of computations in ``dtype``, judged by a reference that works in ``work``."""

    dtype: np.dtype[Any]

    @property
    def work(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.dtype == np.float32 else np.longdouble)

    @property
    def u(self) -> float:
        # The reference rounds too. This doubles the bound where a platform's long double is its double; elsewhere it is
        # negligible.
        return float(np.finfo(self.dtype).eps + np.finfo(self.work).eps) / 2

    @property
    def eta(self) -> float:
        return float(np.finfo(self.dtype).smallest_subnormal)

    @property
    def tiny(self) -> float:
        return float(np.finfo(self.dtype).tiny)

    @property
    def largest(self) -> float:
        return float(np.finfo(self.dtype).max)

    def gamma(self, n: float) -> float:
        return n * self.u / (1 - n * self.u)

    def exact(self, value: Any) -> Bounded:
        """An input: it has no error."""
        value = np.asarray(value, self.work)
        return Bounded(value, np.zeros_like(value), self)

    def rounded(self, parameter: float) -> Bounded:
        """A Python float, which is rounded to ``dtype`` when it is passed in."""
        value = np.asarray(parameter, self.work)
        return Bounded(value, np.asarray(self.u * abs(value)), self)

    def bilinear(self, function: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray, n: float) -> Bounded:
        """``function(a, b)`` where every element is a sum of at most ``n`` products of an element of ``a`` and one of ``b``.

        The bound is the textbook's: gamma_n times the same function of the absolute values.
        """
        a, b = a.astype(self.work), b.astype(self.work)
        magnitude = function(np.abs(a), np.abs(b))
        return self.settle(function(a, b), 0, self.gamma(n) * magnitude + n * self.eta, magnitude)

    def linear(self, function: Callable[[np.ndarray], np.ndarray], a: np.ndarray, n: float) -> Bounded:
        """``function(a)`` where every element is a sum of ``a``'s elements, with fixed weights, in at most ``n`` roundings."""
        a = a.astype(self.work)
        magnitude = function(np.abs(a))
        return self.settle(function(a), 0, self.gamma(n) * magnitude + n * self.eta, magnitude)

    def settle(self, value: np.ndarray, carried: Any, own: Any, magnitude: np.ndarray) -> Bounded:
        """``value`` with its error: what is ``carried`` over from the operands, plus the step's ``own``.

        ``magnitude`` is the largest absolute value that the step may pass through.
        """
        error = np.asarray(carried + own)
        unknown = ~np.isfinite(carried) | (np.isfinite(value) & ~(magnitude + error <= self.largest))
        error = np.where(np.isfinite(value), error, 0)
        return Bounded(np.asarray(value), np.where(unknown, np.inf, error), self)


@dataclass(frozen=True)
class Bounded:
    """``value`` in higher precision, and for each element how far a computation in ``rounding.dtype`` may be from it."""

    value: np.ndarray
    error: np.ndarray
    rounding: Rounding

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error, self.rounding)

    def __add__(self, other: Bounded) -> Bounded:
        return self._settle(self.value + other.value, self.error + other.error, other)

    def __sub__(self, other: Bounded) -> Bounded:
        return self + -other

    def __mul__(self, other: Bounded) -> Bounded:
        (a, ea), (b, eb) = (abs(self.value), self.error), (abs(other.value), other.error)
        carried = _times(a, eb) + _times(b, ea) + _times(ea, eb)
        infinite = (np.isinf(a) & (b > eb)) | (np.isinf(b) & (a > ea))
        return self._settle(self.value * other.value, np.where(infinite, 0, carried), other)

    def __truediv__(self, other: Bounded) -> Bounded:
        (a, ea), (b, eb) = (abs(self.value), self.error), (abs(other.value), other.error)
        # |a'/b' - a/b| <= (ea + |a/b| eb) / (|b| - eb)
        value = self.value / other.value
        carried = np.where(b > eb, (ea + _times(abs(value), eb)) / (b - eb), np.inf)
        certain = ((ea == 0) & (eb == 0)) | (np.isinf(a) & (b > eb))
        return self._settle(value, np.where(certain, 0, carried), other)

    def exp(self) -> Bounded:
        value = np.exp(self.value)
        carried = _times(value, np.expm1(self.error))
        # Vectorised exp may flush a subnormal result to zero.
        own = FUNCTION * self.rounding.u * (value + carried) + self.rounding.tiny
        return self._settle(value, carried, own=np.where(np.isinf(self.value), 0, own))

    def log(self) -> Bounded:
        value = np.log(self.value)
        carried = np.where(self.error < self.value, -np.log1p(-self.error / self.value), np.inf)
        return self._settle(value, np.where(self.error == 0, 0, carried), own=FUNCTION * self.rounding.u * abs(value))

    def power(self, exponent: float) -> Bounded:
        value = self.value**exponent
        low, high = self.value - self.error, self.value + self.error
        # A power is monotonic on either side of zero, so the worst errors are at the ends of the interval.
        carried = np.where((low > 0) | (high < 0), np.maximum(abs(low**exponent - value), abs(high**exponent - value)), np.inf)
        certain = (self.error == 0) | ((high < 0) & np.isnan(value))
        carried = np.where(certain, 0, carried)
        # The exponent is rounded to dtype: d(s^b) = s^b ln(s) db.
        logarithm = np.where((self.value > 0) & np.isfinite(self.value), abs(exponent * np.log(self.value)), 0)
        own = (FUNCTION + logarithm) * self.rounding.u * (abs(value) + carried) + self.rounding.eta
        return self._settle(value, carried, own=np.where(np.isinf(self.value), 0, own))

    def sum(self, axis: int | tuple[int, ...] | None = None, *, keepdims: bool = False) -> Bounded:
        value = np.sum(self.value, axis=axis, keepdims=keepdims)
        carried = np.sum(self.error, axis=axis, keepdims=keepdims)
        magnitude = np.sum(abs(self.value), axis=axis, keepdims=keepdims) + carried
        n = self.value.size / max(value.size, 1)
        return self.rounding.settle(value, carried, self.rounding.gamma(n) * magnitude, magnitude)

    def select(self, function: Callable[[np.ndarray], np.ndarray]) -> Bounded:
        """The same elements in another arrangement."""
        return Bounded(function(self.value), function(self.error), self.rounding)

    def _settle(self, value: np.ndarray, carried: np.ndarray, other: Bounded | None = None, *, own: Any = None) -> Bounded:
        """One more step, which rounds once unless its ``own`` error is given."""
        for operand in (self, other) if other else (self,):
            carried = np.where(np.isfinite(operand.error), carried, np.inf)
            carried = np.where(np.isnan(operand.value) & (operand.error == 0), 0, carried)  # NaN, whatever the other operand is
        if own is None:
            own = self.rounding.u * (abs(value) + carried) + self.rounding.eta
        return self.rounding.settle(value, carried, own, abs(value))


def _times(a: np.ndarray, error: np.ndarray) -> np.ndarray:
    """``a * error``, but 0 where ``error`` is 0, even if ``a`` is infinite."""
    return np.where(error == 0, 0, a * error)
