"""test_soak.py over the native engine: the same objects, memory and descriptors
300,000 messages later, or as many as ``AIOZMQ_SPEEDUPS_SOAK`` says."""

import os

import pytest
import test_soak as soak

MESSAGES = int(os.environ.get("AIOZMQ_SPEEDUPS_SOAK", 300_000))

pytestmark = [
    pytest.mark.leaks,
    pytest.mark.slow,
    pytest.mark.timeout(max(600, MESSAGES // 5000)),
]


@pytest.mark.parametrize(
    "test", [soak.test_round_trips, soak.test_large_frames, soak.test_streams]
)
def test_flat(run, test):
    descriptors = len(os.listdir("/proc/self/fd"))

    def run_long(coroutine):
        return run(coroutine, MESSAGES // 1000 + 60)

    test(run_long, MESSAGES // soak.ROUNDS)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 5
