"""What pip makes of the sources: from a checkout and from an sdist."""

import os
import shutil
import subprocess
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    ".ci LICENSE MANIFEST.in Makefile README.rst CHANGES.rst CONTRIBUTING.rst "
    "pyproject.toml setup.py "
    "aiozmq_speedups aiozmq_speedups.pth benchmarks csrc docs examples tests"
).split()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (ROOT / "csrc").exists(), reason="the sources are not here"),
]


def run(*argv, cwd, **env):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIOZMQ_SPEEDUPS_", "LD_PRELOAD", "PYTHON"))
    }
    # The sources are the same each time.
    if "CC" not in kept and shutil.which("ccache"):
        kept["CC"] = f"ccache {sysconfig.get_config_var('CC') or 'cc'}"
    done = subprocess.run(
        list(map(str, argv)),
        cwd=cwd,
        env=kept | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A copy of the sources: builds leave traces."""
    target = tmp_path / "checkout"
    target.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns(
                "*.so", "*.o", "__pycache__", ".*_cache", "_build", "results"
            )
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture
def python(tmp_path):
    """A fresh environment's interpreter, with pyzmq and msgpack borrowed from ours."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    # An entry of sys.path at the end: what is installed there comes first.
    import msgpack
    import zmq

    folders = {str(Path(module.__file__).parents[1]) for module in (msgpack, zmq)}
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for folder in folders:
        for pattern in "zmq", "pyzmq*", "msgpack*":
            for path in Path(folder).glob(pattern):
                (borrowed / path.name).symlink_to(path)
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    return python


INFO = """
import aiozmq_speedups
from aiozmq_speedups import _ext, rpc
async def main():
    router, _ = await aiozmq_speedups.create_zmq_connection(
        aiozmq_speedups.ZmqProtocol, 6, bind="tcp://127.0.0.1:*")
    router.close()
aiozmq_speedups.run(main())
print(_ext.core.BUILD_FLAVOUR if _ext.core else _ext.reason)
"""


def installed(python, cwd, **env):
    return run(python, "-c", INFO, cwd=cwd, **env).splitlines()[-1]


def pip_install(python, *argv, cwd, **env):
    return run(python, "-m", "pip", "install", "--no-deps", *argv, cwd=cwd, **env)


def test_checkout(checkout, python, tmp_path):
    pip_install(python, ".", cwd=checkout)
    assert installed(python, tmp_path) == "release"
    # And the same environment switched off at run time.
    off = installed(python, tmp_path, AIOZMQ_SPEEDUPS_PURE="1")
    assert off == "switched off by AIOZMQ_SPEEDUPS_PURE"
    script = python.with_name("aiozmq-speedups-proxy")
    assert "forwarder" in run(script, "--help", cwd=tmp_path)


def test_editable(checkout, python, tmp_path):
    pip_install(python, "-e", ".", cwd=checkout)
    assert installed(python, tmp_path) == "release"
    code = "import aiozmq_speedups; print(aiozmq_speedups.__file__)"
    assert str(checkout) in run(python, "-c", code, cwd=tmp_path)


def test_sdist(checkout, python, tmp_path):
    files = [path for path in checkout.rglob("*") if path.is_file()]
    run(python, "-m", "pip", "install", "build", cwd=tmp_path)
    run(python, "-m", "build", "--sdist", ".", cwd=checkout)
    (archive,) = (checkout / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
        file.extractall(tmp_path / "unpacked", filter="data")
    assert {str(path.relative_to(checkout)) for path in files} <= names
    pip_install(python, archive, cwd=tmp_path)
    assert installed(python, tmp_path) == "release"
    # And with its own commands.
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    make = ["make", "--no-print-directory", "test", f"PYTHON={python}"]
    make.append("T=tests/loop/test_basic.py")
    # The variables of a make that runs these tests are not for this one.
    out = run(*make, cwd=unpacked, MAKEFLAGS="", MAKELEVEL="0")
    assert " passed" in out.splitlines()[-1]


NOT_BUILT = "the C extension was not built"


@pytest.mark.parametrize(
    "env",
    [
        {"AIOZMQ_SPEEDUPS_NO_EXTENSIONS": "1"},
        {"CC": "/bin/false"},
        {"CC": "/no/such/compiler"},
    ],
    ids=lambda env: "-".join(env.values()).replace("/", "_"),
)
def test_without_the_extension(checkout, python, tmp_path, env):
    pip_install(python, ".", cwd=checkout, **env)
    assert installed(python, tmp_path) == NOT_BUILT
    (about,) = (tmp_path / "venv").glob("lib/*/site-packages/aiozmq_speedups-*/WHEEL")
    assert "Root-Is-Purelib: true\nTag: py3-none-any\n" in about.read_text()
    code = "import aiozmq_speedups.loop, aiozmq_speedups.selector"
    out = run(python, "-c", code, cwd=tmp_path)
    assert out.count(f"RuntimeWarning: aiozmq_speedups is slow here: {NOT_BUILT}.") == 1
    assert run(python, "-c", code, cwd=tmp_path, AIOZMQ_SPEEDUPS_PURE="1") == ""


@pytest.mark.parametrize(
    "env, why",
    [
        ({"AIOZMQ_SPEEDUPS_NO_EXTENSIONS": "1"}, "but AIOZMQ_SPEEDUPS_NO_EXTENSIONS"),
        ({"CC": "/no/such/compiler"}, "/no/such/compiler"),
    ],
)
def test_an_extension_that_is_required(checkout, python, env, why):
    env = {"AIOZMQ_SPEEDUPS_REQUIRE_EXTENSIONS": "1", **env}
    with pytest.raises(AssertionError, match=why):
        pip_install(python, ".", cwd=checkout, **env)


def test_a_failed_build_does_not_keep_the_old_extension(checkout, python, tmp_path):
    pip_install(python, ".", cwd=checkout)
    assert installed(python, tmp_path) == "release"
    source = checkout / "csrc" / "module.c"
    source.write_text(source.read_text() + "\n#error broken\n")
    pip_install(python, ".", cwd=checkout)
    assert installed(python, tmp_path) == NOT_BUILT


def test_only_what_changed_is_compiled(checkout, python):
    def build(**env):
        """The object files that the build has made anew."""
        before = {path: path.stat().st_mtime_ns for path in checkout.rglob("*.o")}
        env = {"AIOZMQ_SPEEDUPS_BUILD": "debug", **env}
        pip_install(python, ".", cwd=checkout, **env)
        now = {path: path.stat().st_mtime_ns for path in checkout.rglob("*.o")}
        return {path.stem for path in now if now[path] != before.get(path)}

    sources = list(checkout.glob("csrc/**/*.c"))
    everything = {path.stem for path in sources}
    assert build() == everything
    assert build() == set()
    (checkout / "csrc/module.c").touch()
    assert build() == {"module"}
    header = checkout / "csrc/rpc/codec.h"
    header.touch()
    changed = build()
    direct = {p.stem for p in sources if '"rpc/codec.h"' in p.read_text()}
    assert direct <= changed < everything
    assert build(CFLAGS="-DANOTHER_COMMAND") == everything


def test_a_developer_build_fails_without_a_compiler(checkout, python):
    env = {"CC": "/bin/false", "AIOZMQ_SPEEDUPS_BUILD": "debug"}
    with pytest.raises(AssertionError, match="/bin/false"):
        pip_install(python, ".", cwd=checkout, **env)


def test_unknown_flavour(checkout, python):
    with pytest.raises(AssertionError, match="'fast' is not a build flavour: use one"):
        pip_install(python, ".", cwd=checkout, AIOZMQ_SPEEDUPS_BUILD="fast")
