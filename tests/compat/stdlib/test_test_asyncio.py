"""CPython's own test.test_asyncio, run on this package's loop.

One pytest item for each of its modules. A test counts as failed where it fails
on our loop twice and passes on asyncio's own loop in the same environment: so
there is no list of what fails for want of a network, of IPv6 or of time.
"""

import importlib
import sys

import exclusions
import harness
import pytest

from aiozmq_speedups._ext import core
from aiozmq_speedups._loop import tls as _tls

MODULES = harness.stdlib_modules()

pytestmark = [
    pytest.mark.skipif(not MODULES, reason="Python without its test package"),
    pytest.mark.skipif(core is None, reason="without the extension it is asyncio's"),
]

# The time of a whole module, not of a test: those have their own limit.
LIMIT = pytest.mark.timeout(2 * harness.SECONDS_PER_PROCESS)


def excluded_tests(module, kind, loop):
    tests = dict(exclusions.TESTS)
    if loop != "speedups":
        tests |= exclusions.TLS_TESTS
    return {
        f"test.test_asyncio.{name}"
        for name, exclusion in tests.items()
        if name.startswith(f"{module}.") and exclusion.kind == kind
    }


def failed(results):
    return {
        outcome.id: outcome
        for outcome in results.values()
        if outcome.outcome in ("fail", "crash")
    }


@LIMIT
@pytest.mark.parametrize("module", [m for m in MODULES if m not in exclusions.MODULES])
def test_module(module, tmp_path):
    check_module(module, "speedups", tmp_path)


@LIMIT
@pytest.mark.skipif(_tls.load()[0] is None, reason=f"aiofastnet: {_tls.load()[1]}")
@pytest.mark.parametrize("module", [m for m in exclusions.TLS_MODULES if m in MODULES])
def test_module_with_aiofastnet(module, tmp_path):
    check_module(module, "speedups-aiofastnet", tmp_path)


def check_module(module, loop, tmp_path):
    hangs = excluded_tests(module, exclusions.HANGS, loop)
    fails = excluded_tests(module, exclusions.FAILS, loop)
    results = harness.run_module(module, loop, tmp_path, skip=hangs)
    bad = failed(results)
    assert module not in bad, bad[module].detail
    rotten = sorted(name for name in fails & results.keys() if name not in bad)
    assert not rotten, f"excluded, but they do not fail any more: {rotten}"

    def run_again(kind, names):
        if not names:
            return set()
        again = harness.run_module(module, kind, tmp_path, only=sorted(names))
        return {name for name in names if failed(again).keys() & {name}}

    # By chance, on a busy machine? A crash or a hang never is.
    names = {name for name, outcome in bad.items() if outcome.outcome == "fail"} - fails
    for name in names - run_again(loop, names):
        del bad[name]
    # Or not for our loop's sake?
    for name in run_again("asyncio", bad.keys() - fails):
        del bad[name]
    for name in fails:
        bad.pop(name, None)
    assert not bad, "\n\n".join(
        f"{outcome.outcome}: {outcome.id}\n{outcome.detail}" for outcome in bad.values()
    )
    # that the tests ran on our loop at all
    assert any(outcome.loops for outcome in results.values()), results


def test_excluded_modules_exist():
    assert [m for m in exclusions.MODULES if m not in MODULES] == []


def test_exclusions_have_reasons():
    for table in exclusions.MODULES, exclusions.CLASSES, exclusions.TEST_LOOP:
        assert all(table.values())
    for exclusion in (exclusions.TESTS | exclusions.TLS_TESTS).values():
        assert exclusion.kind in (exclusions.FAILS, exclusions.HANGS)
        assert exclusion.reason


ALL_TESTS = exclusions.TESTS | exclusions.TLS_TESTS


@pytest.mark.parametrize("name", ALL_TESTS)
def test_excluded_test_exists(name):
    if sys.version_info < ALL_TESTS[name].since:
        pytest.skip("of a newer Python")
    module, cls, method = name.split(".")
    test = importlib.import_module(f"test.test_asyncio.{module}")
    assert hasattr(getattr(test, cls), method)
