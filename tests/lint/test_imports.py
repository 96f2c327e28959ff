"""The package's imports go downward, and in no circle.

The code of public names
is in _zmq/ and _loop/, and _zmq/ does not know the loop. Only _zmq/engine_libzmq.py
calls pyzmq, which all others have from _zmq/pyzmq.py.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "aiozmq_speedups"

# From the bottom up: a room imports those before it, and itself. A module that is
# not in a folder is public, or a program's part that stands on the public ones.
ROOMS = ("small", "_zmq", "_loop", "public", "rpc", "programs")
SMALL = {"_alias", "_core", "_ext", "_version", "interface", "log", "util"}
PROGRAMS = {"", "__main__", "_info", "_startup", "_uvloop", "cli", "zmq_asyncio"}
PROGRAMS |= {"otel"}

FILES = sorted(PACKAGE.rglob("*.py"))
if not FILES:
    pytest.skip("the sources are not here", allow_module_level=True)


def module_of(path):
    """_zmq.pure for _zmq/pure.py, the empty string for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in FILES}


def only_for_types(node):
    test = node.test if isinstance(node, ast.If) else None
    if isinstance(test, ast.BoolOp):
        return False  # TYPE_CHECKING or something: it is run, too
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))


def import_nodes(node):
    """Every import that may be executed, those inside functions among them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif only_for_types(child):
            for other in child.orelse:
                yield from import_nodes(ast.Module([other], []))
        else:
            yield from import_nodes(child)


def imported(path):
    """{module of the package: line} for the imports in a file."""
    package = path.relative_to(PACKAGE).parent.parts
    found = {}
    for node in import_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            base = node.module or ""
            if node.level:
                above = package[: len(package) + 1 - node.level]
                base = ".".join(["aiozmq_speedups", *above, *filter(None, [base])])
            # Names in a package may be modules: those are what is imported then.
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            if top != "aiozmq_speedups":
                continue
            while rest and rest not in MODULES:
                rest = rest.rpartition(".")[0]
            found.setdefault(rest, node.lineno)
    found.pop(module_of(path), None)
    return found


IMPORTS = {module: imported(path) for module, path in MODULES.items()}


def room_of(module):
    first = module.partition(".")[0]
    if first in SMALL:
        return "small"
    if first in PROGRAMS:
        return "programs"
    return first if first in ROOMS else "public"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward(module):
    own = ROOMS.index(room_of(module))
    for other, line in IMPORTS[module].items():
        if not other:
            continue  # the package, whose names are loaded when they are used
        assert ROOMS.index(room_of(other)) <= own, f"line {line}: {other}"


def test_no_import_circle():
    done, way = set(), []

    def visit(module):
        if module in way:
            pytest.fail(" -> ".join([*way[way.index(module) :], module]))
        if module not in done:
            way.append(module)
            for other in IMPORTS[module]:
                visit(other)
            way.pop()
            done.add(module)

    for module in sorted(MODULES):
        visit(module)


# -- pyzmq is called in one place --

# Beside programs, and zmq_asyncio, which derives from pyzmq's classes.
OWNERS = ("_zmq.engine_libzmq", "_zmq.pyzmq")
METHODS = set(
    "get set getsockopt setsockopt bind unbind connect disconnect send recv poll close "
    "closed context monitor disable_monitor get_monitor_socket socket term".split()
)
SOCKETS = {"sock", "zmq_sock", "_zmq_sock", "pair", "context", "zmq_context"}


def pyzmq_used(node, sockets):
    """Every expression that asks something of pyzmq, outside of annotations."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not only_for_types(child):
                yield from pyzmq_used(child, sockets)
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zmq"):
        yield node
    if not isinstance(node, ast.Attribute):
        return
    of = getattr(node.value, "id", "") or getattr(node.value, "attr", "")
    if of == "zmq" and node.attr[0].islower():
        yield node
    elif of in sockets and node.attr in METHODS:
        yield node


@pytest.mark.parametrize("module", MODULES)
def test_pyzmq_is_called_by_its_engine_only(module):
    if module in OWNERS or room_of(module) == "programs":
        return
    tree = ast.parse(MODULES[module].read_text())
    tree.body = [node for node in tree.body if not only_for_types(node)]
    # Elsewhere a sock is the socket module's.
    of_zmq = room_of(module) in ("_zmq", "rpc") and "native" not in module
    used = pyzmq_used(tree, SOCKETS if of_zmq else ())
    assert not [f"line {node.lineno}: {ast.unparse(node)}" for node in used]
