"""The command line: ``python -m aiozmq_speedups info`` and ``... run PROGRAM``."""

from __future__ import annotations

import argparse
import builtins
import os
import pkgutil
import runpy
import sys
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from aiozmq_speedups._startup import start

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

RUN = """\
Run a program on this event loop: asyncio.run(), asyncio.Runner() and
asyncio.new_event_loop() make it, and so do uvloop's run(), new_event_loop(),
install(), EventLoopPolicy and Loop, be uvloop installed or not. `import aiozmq`
gives this package, and `import zmq.asyncio` its zmq_asyncio. Processes that are
forked are on it, too, and so are Pythons that are started (multiprocessing's spawn
and forkserver, the workers of uvicorn, Sanic and hypercorn), as
AIOZMQ_SPEEDUPS_RUN=1 is in their environment. You may set that yourself instead:
AIOZMQ_SPEEDUPS_RUN=1 uvicorn app:app."""

NOT_COVERED = """\
Not covered:
- started Pythons where aiozmq_speedups.pth is in no site directory (an editable
  install, `pip install --target`, a checkout in PYTHONPATH), Pythons of another
  environment, and those started with -S, -E, -I or an environment of their own;
- a program that makes asyncio.SelectorEventLoop() by its name, as `uvicorn
  --loop asyncio` does: a RuntimeWarning says so;
- other loops that it asks for by name: rloop, zuvloop, granian's own choice.
`python -m aiozmq_speedups info` says which loop each kind of process gets."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (sys.argv[1:]) and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m aiozmq_speedups", description="asyncio and ZeroMQ at C speed."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    text = "print versions and what is accelerated"
    commands.add_parser("info", help=text, description=text)
    text = "run a program on this event loop"
    sub = commands.add_parser(
        "run",
        help=text,
        description=RUN,
        epilog=NOT_COVERED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    sub.add_argument(
        "-m",
        dest="module",
        action="store_true",
        help="PROGRAM is a module's name, as for 'python -m'",
    )
    sub.add_argument(
        "program",
        metavar="PROGRAM",
        help="a script, or a directory or zip file with a __main__.py",
    )
    rest = sub.add_argument("args", metavar="ARG", nargs=argparse.REMAINDER)
    rest.required = False  # argparse would say so, where PROGRAM is missing
    options = parser.parse_args(argv)
    if options.command == "info":
        return info()
    run(options.program, options.args, module=options.module)
    return 0


def info() -> int:
    """Print one ``name: value`` line for each fact a bug report needs."""
    from aiozmq_speedups._info import collect

    facts = collect()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    return 0


def run(program: str, args: Sequence[str], *, module: bool = False) -> None:
    """Run `program` as ``python [-m] PROGRAM ARGS`` would, on this event loop.

    ``asyncio.run()``, ``asyncio.Runner()`` and ``asyncio.new_event_loop()``
    give it an :class:`aiozmq_speedups.Loop`, and ``import aiozmq``, ``import
    uvloop`` and ``import zmq.asyncio`` give it this package; so they do in the
    Pythons that it starts, as AIOZMQ_SPEEDUPS_RUN=1 is in their environment.
    """
    start()
    # The program gets a __main__ of its own, for good: threads and atexit
    # callbacks look it up after the main script has ended.
    main_module = ModuleType("__main__")
    vars(main_module)["__builtins__"] = builtins
    sys.modules["__main__"] = main_module
    try:
        if module:
            sys.argv = ["-m", *args]
            # What the interpreter itself calls for `python -m` (Modules/main.c).
            runpy._run_module_as_main(program)  # type: ignore[attr-defined]
        else:
            sys.argv = [program, *args]
            _run_path(program, main_module)
    except SystemExit:
        raise
    except BaseException:
        if sys.excepthook is sys.__excepthook__:
            sys.excepthook = _excepthook
        raise


def _run_path(path: str, main_module: ModuleType) -> None:
    file = os.path.join(os.getcwd(), path)
    is_importable = pkgutil.get_importer(path) is not None
    if not sys.flags.safe_path:
        # `python -m` has put the working directory there.
        sys.path[0] = file if is_importable else os.path.dirname(os.path.realpath(path))
    elif is_importable:
        sys.path.insert(0, file)
    if is_importable:
        runpy._run_module_as_main(  # type: ignore[attr-defined]
            "__main__", alter_argv=False
        )
        return
    loader: SourceFileLoader | SourcelessFileLoader
    try:
        if path.endswith(".pyc"):
            loader = SourcelessFileLoader("__main__", file)
            code = loader.get_code("__main__")
            assert code is not None  # a FileLoader finds what it can read
        else:
            loader = SourceFileLoader("__main__", file)
            code = compile(loader.get_data(file), file, "exec", dont_inherit=True)
    except OSError as exc:
        print(
            f"{sys.executable}: can't open file {file!r}: "
            f"[Errno {exc.errno}] {exc.strerror}",
            file=sys.stderr,
        )
        sys.exit(2)
    vars(main_module).update(__file__=file, __loader__=loader)
    if sys.version_info < (3, 15):
        vars(main_module)["__cached__"] = None
    exec(code, vars(main_module))


def _excepthook(
    kind: type[BaseException], exc: BaseException, tb: TracebackType | None
) -> None:
    """Print the traceback that the program would have had without us."""
    entry = tb
    while entry is not None:
        if entry.tb_frame.f_code.co_filename == __file__:
            tb = entry.tb_next
        entry = entry.tb_next
    sys.__excepthook__(kind, exc.with_traceback(tb), tb)


if __name__ == "__main__":
    sys.exit(main())
