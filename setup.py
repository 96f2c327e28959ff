"""Builds the optional C extension; everything else is in pyproject.toml.

``AIOZMQ_SPEEDUPS_NO_EXTENSIONS=1`` builds the pure-Python package, and so does a
compiler that fails, if not ``AIOZMQ_SPEEDUPS_REQUIRE_EXTENSIONS=1`` makes it an error.
``AIOZMQ_SPEEDUPS_BUILD`` chooses the flavour: release (the default), debug
(asserts and live-object counters on, warnings are errors), asan
(AddressSanitizer and UndefinedBehaviorSanitizer), tsan (ThreadSanitizer) or coverage
(gcov).
Each flavour has a build directory of its own, build/<flavour>.
"""

import contextlib
import glob
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

FLAVOURS = {
    "release": (["-O3", "-DNDEBUG"], []),
    "debug": (["-O1", "-g3", "-UNDEBUG", "-DAZS_DEBUG", "-Wextra", "-Werror"], []),
    "asan": (
        ["-O1", "-g3", "-UNDEBUG", "-DAZS_DEBUG", "-fno-omit-frame-pointer"]
        + ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
        ["-fsanitize=address,undefined"],
    ),
    # No AZS_DEBUG: its counters are atomic, and what they order is no race any more.
    "tsan": (
        ["-O1", "-g3", "-UNDEBUG", "-fno-omit-frame-pointer", "-fsanitize=thread"],
        ["-fsanitize=thread"],
    ),
    "coverage": (
        ["-O0", "-g3", "-UNDEBUG", "-DAZS_DEBUG", "--coverage"],
        ["--coverage"],
    ),
}

flavour = os.environ.get("AIOZMQ_SPEEDUPS_BUILD", "release")
if flavour not in FLAVOURS:
    sys.exit(
        f"AIOZMQ_SPEEDUPS_BUILD={flavour!r} is not a build flavour: use one of "
        + ", ".join(FLAVOURS)
    )


def is_set(variable):
    return os.environ.get(variable, "") not in ("", "0")


no_extensions = is_set("AIOZMQ_SPEEDUPS_NO_EXTENSIONS")
require_extensions = is_set("AIOZMQ_SPEEDUPS_REQUIRE_EXTENSIONS")
cflags, ldflags = FLAVOURS[flavour]


class build_of_flavour(build):
    """Builds each flavour in a directory of its own."""

    def initialize_options(self):
        super().initialize_options()
        self.build_base = os.path.join("build", flavour)

    def run(self):
        # A module that has been deleted since the last build stays deleted.
        for path in glob.glob(os.path.join(self.build_lib, "**/*.py"), recursive=True):
            os.remove(path)
        super().run()


class build_py_with_pth(build_py):
    """Puts aiozmq_speedups.pth where `site` finds it, beside the package."""

    pth = "aiozmq_speedups.pth"

    def run(self):
        super().run()
        if not self.editable_mode:
            self.copy_file(self.pth, os.path.join(self.build_lib, self.pth))

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        if not self.editable_mode:
            outputs.append(os.path.join(self.build_lib, self.pth))
        return outputs


def is_current(obj, command):
    """Is the object file as `command` would make it of what there is now?"""
    try:
        with open(obj + ".d") as file:
            needed = file.read().replace("\\\n", " ").partition(":")[2].split()
        with open(obj + ".command") as file:
            is_same = file.read() == command
        made = os.path.getmtime(obj)
        return is_same and all(os.path.getmtime(name) < made for name in needed)
    except OSError:
        return False


class build_ext_of_changes(build_ext):
    """Compiles what has changed, and several files at a time."""

    def build_extensions(self):
        compiler = self.compiler
        compile_all, compile_one = compiler.compile, compiler._compile

        def compile_changed(obj, src, ext, cc_args, extra, pp_opts):
            command = repr((compiler.compiler_so, cc_args, extra, pp_opts))
            if not is_current(obj, command):
                extra = [*extra, "-MMD", "-MF", obj + ".d"]
                compile_one(obj, src, ext, cc_args, extra, pp_opts)
                with open(obj + ".command", "w") as file:
                    file.write(command)

        def compile_together(*args, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                jobs = []
                compiler._compile = lambda *one: jobs.append(
                    pool.submit(compile_changed, *one)
                )
                objects = compile_all(*args, **options)
                for job in jobs:
                    job.result()
            return objects

        compiler.compile = compile_together
        self.force = True  # each file is asked, with its command
        super().build_extensions()

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception:
            # The last build's must not be installed in place of this one.
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.get_ext_fullpath(ext.name))
            if ext.optional:
                self.be_pure()
            raise

    def be_pure(self):
        """Let the wheel be py3-none-any: pip keeps it, for other Pythons too."""
        self.distribution.ext_modules = []
        wheel = self.distribution.command_obj.get("bdist_wheel")
        if wheel is not None:
            wheel.root_is_pure = True


def extensions():
    reason = None
    if no_extensions:
        reason = "AIOZMQ_SPEEDUPS_NO_EXTENSIONS is set"
    elif not sys.platform.startswith("linux"):
        reason = f"the C extension is for Linux, and this is {sys.platform}"
    if reason is not None:
        if require_extensions:
            sys.exit(f"AIOZMQ_SPEEDUPS_REQUIRE_EXTENSIONS is set, but {reason}")
        return []
    return [
        Extension(
            "aiozmq_speedups._core",
            sources=sorted(glob.glob("csrc/**/*.c", recursive=True)),
            include_dirs=["csrc"],
            define_macros=[
                ("_GNU_SOURCE", "1"),
                ("AZS_BUILD_FLAVOUR", f'"{flavour}"'),
            ],
            extra_compile_args=["-std=c11", "-fvisibility=hidden", "-Wall"]
            + ["-Wno-unused-parameter", "-Wno-missing-field-initializers"]
            + ["-Wno-cast-function-type"]
            + cflags,
            extra_link_args=ldflags,
            # Without a compiler the pure-Python package is installed; a
            # developer's build must not hide its errors that way.
            optional=flavour == "release" and not require_extensions,
        )
    ]


setup(
    ext_modules=extensions(),
    cmdclass={
        "build": build_of_flavour,
        "build_ext": build_ext_of_changes,
        "build_py": build_py_with_pth,
    },
)
