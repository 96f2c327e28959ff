"""Functions in threads of their own, all at work at once."""

import os
import threading

# AZS_STRESS=100 makes a test of threads as many times as long.
LONG = int(os.environ.get("AZS_STRESS", "1"))


def in_threads(*targets):
    """Runs them at once; the first exception of one is raised here."""
    errors = []
    start = threading.Barrier(len(targets), timeout=100)

    def run(target):
        try:
            start.wait()
            target()
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(one,)) for one in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100 + 60 * LONG)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
