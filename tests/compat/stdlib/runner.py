"""Runs one module of CPython's test.test_asyncio with another event loop.

A program for a process of its own: ``python runner.py MODULE --loop KIND``. It
puts the loop in the place of asyncio.SelectorEventLoop and of the default
policy's, so whatever the tests create by either name is that loop, runs the
tests, and writes a JSON object per line:

    {"event": "start", "id": ...}
    {"event": "end", "id": ..., "outcome": "ok" | "skip" | "fail", "loops": n,
     "detail": ...}
    {"event": "done"}

``loops`` is how many of our loops the test made. A test without an end crashed
the process, or hung until faulthandler stopped it.
"""

import argparse
import asyncio
import faulthandler
import importlib
import json
import sys
import unittest

from exclusions import BASE_LOOP, CLASSES, TEST_LOOP
from test import support
from test.test_asyncio import utils

SECONDS_PER_TEST = 120
# everything but "network", "largefile" and what takes very long
RESOURCES = ["cpu", "walltime", "subprocess", "curses", "tzdata"]


def base_loop(kind):
    if kind == "asyncio":
        return asyncio.SelectorEventLoop
    if kind == "uvloop":
        import uvloop

        return uvloop.Loop
    from aiozmq_speedups import Loop

    return Loop


def new_test_loop(loop_class):
    """TestCase.new_test_loop, but a real loop where no clock is simulated."""
    simulated = utils.TestCase.new_test_loop

    def new_test_loop(self, gen=None):
        if gen is not None:
            return simulated(self, gen)
        loop = loop_class()
        self.set_event_loop(loop)
        return loop

    return new_test_loop


def install(kind, module):
    """Puts the loop in asyncio's place; returns a list that counts its instances."""
    base = base_loop(kind)
    made = [0]

    class Loop(base):
        def __init__(self, selector=None):
            made[0] += 1
            if kind == "asyncio":
                super().__init__(selector)
                return
            if selector is not None:
                selector.close()
            super().__init__()

    asyncio.SelectorEventLoop = Loop
    if hasattr(asyncio, "EventLoop"):  # 3.13
        asyncio.EventLoop = Loop
    prefix = "_" if hasattr(asyncio.events, "_AbstractEventLoopPolicy") else ""
    name = prefix + "DefaultEventLoopPolicy"
    default = getattr(asyncio.unix_events, name)

    class Policy(default):
        _loop_factory = Loop

    for namespace in (asyncio, asyncio.unix_events):
        if hasattr(namespace, name):
            setattr(namespace, name, Policy)
    # "no policy" means the default one again, which is ours now
    getattr(asyncio.events, f"{prefix}set_event_loop_policy")(None)
    if kind != "asyncio":
        if module in BASE_LOOP:
            asyncio.BaseEventLoop = asyncio.base_events.BaseEventLoop = Loop
        if module not in TEST_LOOP:
            utils.TestCase.new_test_loop = new_test_loop(Loop)
    return made


class Result(unittest.TestResult):
    def __init__(self, out, made):
        super().__init__()
        self.out = out
        self.made = made
        self.current = None
        self.outcome, self.detail, self.before = "ok", "", 0

    def write(self, **fields):
        self.out.write(json.dumps(fields) + "\n")
        self.out.flush()

    def startTest(self, test):
        super().startTest(test)
        faulthandler.dump_traceback_later(SECONDS_PER_TEST, exit=True)
        self.current = test
        self.outcome, self.detail, self.before = "ok", "", self.made[0]
        self.write(event="start", id=test.id())

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self.current = None
        loops = self.made[0] - self.before
        self.write_end(test, self.outcome, loops, self.detail)

    def write_end(self, test, outcome, loops, detail):
        self.write(
            event="end", id=test.id(), outcome=outcome, loops=loops, detail=detail
        )

    def fail(self, test, error):
        detail = self._exc_info_to_string(error, test)
        if self.current is None:  # setUpModule, tearDownClass and the like
            self.write_end(test, "fail", 0, detail)
            return
        self.outcome = "fail"
        self.detail += detail

    def addFailure(self, test, err):
        self.fail(test, err)

    def addError(self, test, err):
        self.fail(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.fail(test, err)

    def addSkip(self, test, reason):
        if self.current is None:  # a class whose tests are not even started
            self.write_end(test, "skip", 0, reason)
        elif self.outcome == "ok":
            self.outcome, self.detail = "skip", reason

    def addUnexpectedSuccess(self, test):
        self.outcome, self.detail = "fail", "unexpected success"


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("module", help="name inside test.test_asyncio")
    parser.add_argument("--loop", default="speedups")
    parser.add_argument("--out", required=True, help="file for the results")
    parser.add_argument("--skip", help="file with the ids not to run, one a line")
    parser.add_argument("--only", help="file with the only ids to run, one a line")
    options = parser.parse_args()

    faulthandler.enable()
    support.use_resources = RESOURCES
    with open(options.out, "w") as out:
        made = install(options.loop, options.module)
        name = f"test.test_asyncio.{options.module}"
        result = Result(out, made)
        try:
            module = importlib.import_module(name)
        except unittest.SkipTest as exc:
            result.write(event="skip_module", detail=str(exc))
            return
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        tests = [
            test
            for test in flat(suite)
            if options.loop == "asyncio" or type(test).__name__ not in CLASSES
        ]
        if options.only:
            with open(options.only) as f:
                only = set(f.read().split())
            tests = [test for test in tests if test.id() in only]
        if options.skip:
            with open(options.skip) as f:
                skip = set(f.read().split())
            tests = [test for test in tests if test.id() not in skip]
        unittest.TestSuite(tests).run(result)
        result.write(event="done")
    sys.exit(0)


if __name__ == "__main__":
    main()
