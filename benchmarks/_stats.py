"""The few statistics the benchmarks print."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from statistics import NormalDist, fmean, median, stdev

__all__ = ["confidence_interval", "fmean", "median", "spread"]


@functools.cache
def _quantile(probability: float, freedom: int) -> float:
    """Of Student's t distribution, or without scipy of the normal one."""
    try:
        from scipy.stats import t
    except ImportError as exc:
        print(
            f"scipy does not import ({exc}): the confidence intervals are those of "
            "the normal distribution, too narrow for few tries",
            file=sys.stderr,
        )
        return NormalDist().inv_cdf(probability)
    return float(t.ppf(probability, freedom))


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
    quantile = _quantile((1.0 + level) / 2.0, len(samples) - 1)
    half = quantile * stdev(samples) / math.sqrt(len(samples))
    return mean - half, mean + half


def spread(samples: Sequence[float]) -> float:
    """The standard deviation, 0 for a single sample."""
    return stdev(samples) if len(samples) > 1 else 0.0
