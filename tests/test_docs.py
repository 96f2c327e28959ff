"""Each block of code in the documentation runs, and prints what the page shows.

That is README.rst, CONTRIBUTING.rst, docs/ and what it includes.

What a block's language means here:

``python``
    runs; the blocks of a page share their names, and ``await`` may stand at the top.
    With a ``:caption:`` that is a file's name it is written to that file, and runs only
    if no console block has it run.
``output``
    what the block before has printed; ``...`` stands for anything.
``console``
    lines after ``$ `` run in a shell, in the folder with the page's files; the other
    lines are what they print. One that ends in ``&`` goes on while the next ones run.
``sh``
    is not run, but is a shell's language, and its files of ours and make targets exist.
``toml``, ``ini``, ``json``
    can be read.
``text``, ``c``, ``gdb``, ``systemd``, ``nginx``
    are to be read by people.

A comment in the line before a block says more: ``.. not run: WHY`` of one that is only
compiled; ``.. needs: MODULE ...`` of one that is left out if a module is not installed;
``.. slow: MODULE ...`` of one that, besides, is run among the slow tests only.
"""

import configparser
import contextlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from ports import held_port

from aiozmq_speedups import _ext

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", ROOT / "benchmarks/README.rst"]
PAGES += sorted((ROOT / "docs").glob("*.rst"))
RUNNER = Path(__file__).with_name("run_page.py")

#: Ports that the pages name; each gets one of its own here.
PORTS = ("5555", "5556", *(f"80{i:02}" for i in range(8)))

READ_BY_PEOPLE = {"text", "c", "gdb", "systemd", "nginx"}

BLOCK = re.compile(
    r"(?:^\.\. (?P<mark>not run|needs|slow): (?P<what>.+)\n\n?)?"
    r"^(?P<indent> *)\.\. code-block:: (?P<language>[\w-]+)\n"
    r"(?P<options>(?: +:\w+:.*\n)*)\n"
    r"(?P<body>(?:(?P=indent) +.*\n|\s*\n)+)",
    re.MULTILINE,
)


def blocks_of(text):
    """The code blocks of a page, in their order."""
    found = []
    for match in BLOCK.finditer(text):
        caption = re.search(r":caption: (\S+)\n", match["options"])
        found.append(
            SimpleNamespace(
                language=match["language"],
                text=textwrap.dedent(match["body"]).strip("\n") + "\n",
                line=text.count("\n", 0, match.start("body")) + 1,
                not_run=match["mark"] == "not run",
                slow=match["mark"] == "slow",
                needs=[]
                if match["mark"] in (None, "not run")
                else match["what"].split(),
                file=caption and caption[1],
            )
        )
    return found


def name_of(page):
    return page.stem if page.parent.name == "docs" else str(page.relative_to(ROOT))


def can_run(block):
    return not block.not_run and all(map(importlib.util.find_spec, block.needs))


def pages_with(pattern):
    found = [page for page in PAGES if re.search(pattern, page.read_text())]
    return pytest.mark.parametrize("page", found, ids=name_of)


def matches(shown, printed):
    """Is what is `shown` what was `printed`? ``...`` stands for anything, and a line of
    it for any number of lines, none included."""
    pattern = re.sub(r"^\.\.\.$\n", "\0", shown.rstrip(), flags=re.MULTILINE)
    pattern = re.escape(pattern.replace("...", "\1"))
    pattern = pattern.replace("\0", r"(?:.*\n)?").replace("\1", ".*")
    return re.fullmatch(pattern, printed.rstrip(), re.DOTALL) is not None


def check_names(text, at):
    """Are the targets of make, and our files, that a shell block names there?"""
    for target in re.findall(r"^ *make (\w+)", text, re.MULTILINE):
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(f"^{target}:", makefile, re.MULTILINE), f"{at}: make {target}"
    for file in re.findall(r"(?<![\w/])(?:benchmarks|tools|examples)/[\w/]+\.py", text):
        assert (ROOT / file).exists(), f"{at}: {file}"


@pytest.fixture
def ports():
    """Replaces the ports that a page names by free ones."""
    with contextlib.ExitStack() as stack:
        own = {port: str(stack.enter_context(held_port())) for port in PORTS}
        yield lambda text: re.sub(
            rf"(?<![\d_])({'|'.join(PORTS)})(?![\d_])", lambda m: own[m[1]], text
        )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_marked(page):
    """A literal block without a language would be run by nobody."""
    text = page.read_text()
    unmarked = re.findall(r"^(?!\.\. ).*::\n\n +\S.*$", text, re.MULTILINE)
    assert not unmarked
    for block in blocks_of(text):
        at = f"{page.name}:{block.line}"
        match block.language:
            case "python":
                compile(block.text, at, "exec", flags=0x2000)  # with await at the top
            case "sh":
                done = subprocess.run(
                    ["sh", "-n"], input=block.text, capture_output=True, text=True
                )
                assert done.returncode == 0, (at, done.stderr)
                check_names(block.text, at)
            case "toml":
                import tomllib

                tomllib.loads(block.text)
            case "ini":
                configparser.ConfigParser().read_string(block.text)
            case "json":
                json.loads(block.text)
            case language:
                assert language in READ_BY_PEOPLE | {"output", "console"}, at
    assert len(blocks_of(text)) == len(re.findall("^ *.. code-block::", text, re.M))


@pages_with("code-block:: (python|console)")
def test_page(page, prepared):
    blocks = prepared(page)
    run_python(blocks, page)
    run_consoles([block for block in blocks if not block.slow], page)


@pytest.mark.slow
@pytest.mark.timeout(300)  # servers, one after the other
@pages_with(r"\.\. slow: ")
def test_slow_page(page, prepared):
    run_consoles([block for block in prepared(page) if block.slow], page)


@pytest.fixture
def prepared(ports, tmp_path, monkeypatch):
    """Gives a page's blocks, when its files are in the working directory."""
    if _ext.core is None:
        pytest.skip(f"the pages are about the C extension: {_ext.reason}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def prepare(page):
        blocks = blocks_of(ports(page.read_text()))
        make_files(blocks, page, tmp_path)
        return blocks

    return prepare


def make_files(blocks, page, folder):
    for block in blocks:
        if block.file and block.language != "console":
            (folder / block.file).write_text(block.text)
    if "cert.pem" in page.read_text():
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("no openssl to make a certificate with")
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]
            + ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
            + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            + ["-keyout", "key.pem", "-out", "cert.pem"],
            check=True,
            capture_output=True,
        )


def run_python(blocks, page):
    """All Python of the page in one process: what each block prints is compared."""
    consoles = "".join(b.text for b in blocks if b.language == "console")
    jobs = [
        b
        for b in blocks
        if b.language == "python"
        and can_run(b)
        and not b.slow
        and not (b.file and b.file.removesuffix(".py") in consoles)
    ]
    if not jobs:
        return
    source = [{"text": job.text, "line": job.line} for job in jobs]
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(page)],
        input=json.dumps(source),
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    for job, text in zip(jobs, printed, strict=True):
        after = blocks[blocks.index(job) + 1 :]
        if after and after[0].language == "output":
            assert matches(after[0].text, text), f"{page.name}:{job.line}:\n{text}"


def run_consoles(blocks, page):
    running = []
    try:
        for block in blocks:
            if block.language == "console" and can_run(block):
                for command, shown in commands_of(block.text):
                    run_command(command, shown, f"{page.name}:{block.line}", running)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.communicate(timeout=200)
    for process in running:
        assert process.returncode in (0, -signal.SIGTERM), process.args


def commands_of(text):
    """[(command, what it prints), ...] of a console block."""
    pieces = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not pieces[0], "a console block begins with a command"
    for piece in pieces[1:]:
        command, _, shown = piece.partition("\n")
        while command.endswith("\\"):
            line, _, shown = shown.partition("\n")
            command += "\n" + line
        yield command, shown


def run_command(command, shown, at, running):
    if command.endswith("&"):
        # `exec`, so that the process is the program and not the shell.
        process = subprocess.Popen(
            ["sh", "-c", f"exec env {command[:-1]}"], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        if shown:
            line = process.stdout.readline()  # it is ready when it says so
            assert matches(shown, line), f"{at}: {command}:\n{line}"
        return
    done = subprocess.run(
        ["sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, f"{at}: {command}:\n{done.stdout}"
    if shown:
        assert matches(shown, done.stdout), f"{at}: {command}:\n{done.stdout}"


def test_every_public_name_is_documented():
    pages = "".join(page.read_text() for page in PAGES)
    named = re.findall(r"^\.\. (?:auto)?\w+:: ([\w.]+)", pages, re.MULTILINE)
    members = re.search(
        r"automodule:: aiozmq_speedups.zmq_asyncio\n +:members: (.+)", pages
    )
    named = {name.rpartition(".")[2] for name in named + members[1].split(", ")}
    for module in ("", ".core", ".interface", ".loop", ".rpc", ".stream", ".selector"):
        names = set(importlib.import_module(f"aiozmq_speedups{module}").__all__)
        # The standard library's, beside aiozmq's selector.
        names -= {"EVENT_READ", "EVENT_WRITE", "SelectorKey"}
        assert names <= named, (module, names - named)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a ... d\n", "a b\nc d", True),
        ("...\nb\n", "b\n", True),
        ("...\nb\n", "a\na\nb\n", True),
        ("...\nb\n", "ab\n", False),
        ("a.b", "axb", False),
    ],
)
def test_matches(shown, printed, same):
    assert matches(shown, printed) is same
