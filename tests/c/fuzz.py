"""python fuzz.py SECONDS [NAME...]: runs the fuzzers, each so long, under ASan and
UBSan: with libFuzzer where there is a clang that has it, else with fuzz_main.c. What
fails is written to build/fuzz."""

import shutil
import subprocess
import sys

import c_build

FOLDER = c_build.HERE.parents[1] / "build" / "fuzz"
WITH = ["check.c", "hex.c", "ends.c"]


def names():
    """Of the fuzzers: "decoder", ..."""
    files = sorted(c_build.HERE.glob("fuzz_*.c"))
    return [path.stem[5:] for path in files if path.stem != "fuzz_main"]


def clang():
    for name in ("clang", *(f"clang-{n}" for n in range(24, 11, -1))):
        if shutil.which(name):
            return [name]
    return None


def build_with_libfuzzer(name, sources):
    """The program, or None where clang has no libFuzzer."""
    flags = ["-O1", "-fsanitize=fuzzer,address,undefined"]
    flags.append("-fno-sanitize-recover=undefined")
    try:
        return c_build.build(FOLDER / f"{name}-libfuzzer", sources, flags, clang())
    except RuntimeError as exc:
        print(f"no libFuzzer: {exc}", file=sys.stderr)
        return None


def build_with_main(name, sources):
    """The program, which tells fuzz_main.c what it reaches where the compiler can."""
    main = FOLDER / "fuzz_main.o"
    source = [c_build.HERE / "fuzz_main.c"]
    c_build.build(main, source, [*c_build.SANITIZE, "-c"], rooms=())
    flags = [*c_build.SANITIZE, "-fsanitize-coverage=trace-pc"]
    return c_build.build(FOLDER / name, [main, *sources], flags)


def fuzz(name, seconds):
    """True where nothing was found."""
    sources = [c_build.HERE / file for file in [f"fuzz_{name}.c", *WITH]]
    corpus = FOLDER / f"corpus-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    own = build_with_main(name, sources)
    command = [own, str(2**31), str(seconds)]
    program = build_with_libfuzzer(name, sources) if clang() else None
    if program:
        subprocess.run([own, "--seeds", corpus], check=True)
        limits = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=20"]
        command = [program, *limits, "-print_final_stats=1", corpus]
    print(f"{name}: {command[0]}, {seconds} s", flush=True)
    done = subprocess.run(
        command,
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
    )
    lines = done.stdout.splitlines()
    if done.returncode != 0:
        print(*lines[-60:], sep="\n")
    print(*(line for line in lines if "executed_units" in line or "runs" in line))
    return done.returncode == 0


def main():
    seconds, *chosen = sys.argv[1:]
    if c_build.compiler() is None:
        sys.exit("There is no C compiler.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = [name for name in chosen or names() if not fuzz(name, int(seconds))]
    if failed:
        sys.exit(f"found by: {', '.join(failed)}; the inputs are in {FOLDER}")


if __name__ == "__main__":
    main()
