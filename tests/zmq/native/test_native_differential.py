"""The same random scripts on both engines: what is to be seen is the same.

``AIOZMQ_SPEEDUPS_SCRIPTS=0:100000`` has the slow test take these seeds.
"""

import asyncio
import itertools
import os

import pytest
import scripts

from aiozmq_speedups import _ext, new_event_loop

if _ext.core is None:
    pytest.skip("the C extension was not built", allow_module_level=True)

LIBZMQ = ("libzmq", "libzmq")
# Of the subject and its partners, in turn.
ENGINES = [("native", "libzmq"), ("libzmq", "native"), ("native", "native")]


def play(model, engines, folder, patience):
    folder.mkdir()
    loop = new_event_loop(close_timeout=0)
    player = scripts.Player(model, engines, folder, patience)
    try:
        loop.run_until_complete(asyncio.wait_for(player.play(), 100))
    except TimeoutError:
        player.history.append(("not", "ended"))
    finally:
        loop.close()
    return player.history


def fell_short(history):
    return any(row[0] in ("not", "fault", "order") for row in history)


def compare(seed, length, tmp_path, folders):
    """Whether libzmq did what the model promises, as the native engine must.

    A race of libzmq's threads, or a busy machine, may spoil a run: it is repeated,
    with more patience.
    """
    model = scripts.Model(seed, length)
    engines = ENGINES[seed // len(scripts.KINDS) % 3]
    for patience in (2, 5, 10, 10):
        libzmq, native = (
            play(model, either, tmp_path / str(next(folders)), patience)
            for either in (LIBZMQ, engines)
        )
        if libzmq == native:
            return True
        if fell_short(libzmq) and not fell_short(native):
            return False
    differences = "\n".join(
        f"  {i}: libzmq {a}, native {b}"
        for i, (a, b) in enumerate(itertools.zip_longest(libzmq, native))
        if a != b
    )
    raise AssertionError(f"seed {seed}: {model}\n{differences}")


@pytest.mark.parametrize("first", range(0, 66, 11))
def test_a_few_scripts(tmp_path, first):
    folders = itertools.count()
    for seed in range(first, first + 11):
        compare(seed, 12, tmp_path, folders)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_scripts(tmp_path):
    first, last = map(
        int, os.environ.get("AIOZMQ_SPEEDUPS_SCRIPTS", "1000:2000").split(":")
    )
    failed, short = [], 0
    folders = itertools.count()
    for seed in range(first, last):
        try:
            short += not compare(seed, 25, tmp_path, folders)
        except AssertionError as exc:
            failed.append(str(exc))
    assert not failed, "\n".join(failed)
    assert short <= (last - first) // 20
