"""Compiles C programs with csrc's rooms that know no Python."""

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
ROOMS = ("base", "zmtp")

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-UNDEBUG", "-DAZS_DEBUG", "-g", "-Wall"]
FLAGS += ["-Wextra", "-Wno-missing-field-initializers", f"-I{CSRC}", f"-I{HERE}"]
SANITIZE = ["-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
SANITIZE += ["-fno-sanitize-recover=undefined"]


def compiler():
    """The system's C compiler as arguments; None where there is none."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    args = shlex.split(command)
    if shutil.which(args[0]):
        return args
    return ["cc"] if shutil.which("cc") else None


def environment():
    """For the compiler and the programs: `make asan` loads its runtime into pytest,
    and lets CPython leak."""
    drop = ("LD_PRELOAD", "ASAN_OPTIONS", "PYTHONMALLOC")
    return {name: value for name, value in os.environ.items() if name not in drop}


def build(target, sources, flags=(), cc=None, rooms=ROOMS):
    """The program `target` from `sources` and the rooms' own."""
    below = sorted(path for room in rooms for path in (CSRC / room).glob("*.c"))
    command = [*(cc or compiler()), *FLAGS, *flags, "-o", target, *sources, *below]
    command += ["-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(map(str, command))}\n{done.stderr}")
    return target
