"""The few statistics the benchmarks print; scipy is not needed for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

__all__ = ["confidence_interval", "fmean", "median", "spread", "t_quantile"]


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22),
    evaluated by Lentz's method."""
    tiny = 1e-300
    c = 1.0
    d = 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    result = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + term / c
            c = c if abs(c) > tiny else tiny
            result *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return result


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0.0 or x >= 1.0:
        return float(x > 0.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    log_front = (
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
    )
    return math.exp(log_front) * _beta_fraction(a, b, x) / a


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution, for probabilities above 0.5."""

    def cdf(t: float) -> float:
        return 1.0 - 0.5 * _incomplete_beta(
            freedom / 2.0, 0.5, freedom / (freedom + t * t)
        )

    low, high = 0.0, 1.0
    while cdf(high) < probability:
        high *= 2.0
    for _ in range(100):
        middle = (low + high) / 2.0
        if cdf(middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def confidence_interval(
    samples: Sequence[float], level: float = 0.95
) -> tuple[float, float]:
    """The interval that holds the true mean with the given confidence.

    Student's t with n-1 degrees of freedom; of a single sample nothing is
    known but its value.
    """
    mean = fmean(samples)
    if len(samples) < 2:
        return mean, mean
    half = (
        t_quantile((1.0 + level) / 2.0, len(samples) - 1)
        * stdev(samples)
        / math.sqrt(len(samples))
    )
    return mean - half, mean + half


def spread(samples: Sequence[float]) -> float:
    """The standard deviation, 0 for a single sample."""
    return stdev(samples) if len(samples) > 1 else 0.0
