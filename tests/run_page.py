"""Runs a page's blocks of Python for test_docs.py: JSON in, JSON out.

run_page.py PAGE < [{"text": source, "line": number}, ...]

They share one namespace. Those with ``await`` outside of a function run on one loop,
between the others: those may call run() themselves. Writes, in one line, what each has
printed.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import json
import linecache
import sys

import aiozmq_speedups


def main():
    page = sys.argv[1]
    printed = []
    # A page's programs say `if __name__ == "__main__"`.
    module = sys.modules["__main__"]
    names = vars(module)
    loop = None
    for block in json.load(sys.stdin):
        # Its place in the page, so that a traceback shows the page's lines.
        source = "\n" * (block["line"] - 1) + block["text"]
        code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        linecache.checkcache(page)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            result = eval(code, names)
            if inspect.iscoroutine(result):
                if loop is None:
                    loop = aiozmq_speedups.new_event_loop(close_timeout=0)
                    asyncio.set_event_loop(loop)
                loop.run_until_complete(result)
        printed.append(output.getvalue())
    if loop is not None:
        loop.run_until_complete(finish(loop))
        loop.close()
    print(json.dumps(printed))


async def finish(loop):
    """Cancels what the page has left running."""
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


main()
