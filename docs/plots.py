"""Draws the pictures of docs/plots/ from the tables of docs/performance.rst.

python docs/plots.py        (needs matplotlib)
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
OURS, OTHERS, GREY = "#009e73", ("#d55e00", "#0072b2", "#e69f00"), "#999999"
plt.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "plots",  # the same file each time
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
    }
)


def tables(text):
    """Each simple table of reStructuredText: a list of rows, the header first."""
    lines = iter(text.splitlines())
    for line in lines:
        if not re.fullmatch(r"=+( +=+)+", line):
            continue
        spans = [match.span() for match in re.finditer("=+", line)]
        rows = []
        rules = 1
        while rules < 3:
            line = next(lines)
            if line.startswith("==="):
                rules += 1
                continue
            ends = [start for start, _ in spans[1:]] + [None]
            cells = zip(spans, ends, strict=True)
            rows.append([line[start:end].strip() for (start, _), end in cells])
        yield rows


def number(text):
    """``"1.6 M"``, ``"12,772"``, ``"0.95"`` or ``"4,922, 156"``, whose first counts."""
    match = re.match(r"([\d,]*\d(?:\.\d+)?)(?: ([kM]))?(?!\d)", text)
    if match is None:
        return 0.0
    scale = {None: 1, "k": 1e3, "M": 1e6}[match[2]]
    return float(match[1].replace(",", "")) * scale


def bars(name, labels, series, xlabel, *, line=None, notes=None):
    """Groups of horizontal bars. `series`: [(label, colour, values)]."""
    thick = 0.8 / len(series)
    height = 0.7 + len(labels) * max(0.22, 0.15 * len(series))
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    for i, (label, colour, values) in enumerate(series):
        places = [y + (i - (len(series) - 1) / 2) * thick for y in range(len(labels))]
        axes.barh(places, values, thick, label=label, color=colour)
    if notes:
        for y, (value, note) in enumerate(zip(series[0][2], notes, strict=True)):
            axes.text(value, y, f" {note}", va="center")
    if line is not None:
        axes.axvline(line, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", color="#dddddd")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.margins(x=0.12 if notes else 0.02)
    if len(series) > 1:
        figure.legend(loc="outside upper center", ncols=len(series), frameon=False)
    figure.savefig(HERE / "plots" / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def overview(table):
    rows = [
        ("aiozmq.rpc (asyncio)", "aiozmq, rpc", OTHERS[1]),
        ("core aiozmq (asyncio)", "aiozmq, core", OTHERS[1]),
        ("single thread raw zmq", "pyzmq, blocking", GREY),
        ("rpc, C, own loop", "this package, rpc", OURS),
        ("core, C, own loop", "this package, core", OURS),
        ("stream, native engine", "native engine, streams", OURS),
        ("rpc, native engine", "native engine, rpc", OURS),
        ("core, native engine", "native engine, core", OURS),
    ]
    found = {row[0]: row[1] for row in table}
    bars(
        "overview",
        [label for _, label, _ in rows],
        [("", [colour for *_, colour in rows], [number(found[r]) for r, *_ in rows])],
        "round trips a second",
        notes=[found[row] for row, *_ in rows],
    )


def zmq(table):
    # One way and 64 in flight dwarf the rest: the ratios say it.
    bars(
        "zmq",
        [row[0] for row in table[1:]],
        [("x raw pyzmq", OURS, [number(row[2]) for row in table[1:]])],
        "times raw pyzmq",
        line=1,
        notes=[row[2] for row in table[1:]],
    )


def zmq_asyncio(table):
    loads = table[0][1:]
    rows = [
        ("zmq_asyncio, this loop", OURS),
        ("zmq_asyncio, asyncio", OTHERS[2]),
        ("zmq.asyncio, asyncio", OTHERS[1]),
    ]
    values = {row[0]: [number(cell) for cell in row[1:]] for row in table[1:]}
    series = [(label, colour, values[label]) for label, colour in rows]
    bars("zmq_asyncio", loads, series, "times raw pyzmq, which blocks", line=1)


def loop(table):
    labels, series = [row[0] for row in table[1:]], []
    for column, (name, colour) in enumerate(
        [("this loop", OURS), ("uvloop", OTHERS[0]), ("rloop", OTHERS[1])], 1
    ):
        values = [number(row[column]) / number(row[1]) for row in table[1:]]
        series.append((name, colour, values))
    bars("loop", labels, series, "operations a second, as a share of this loop's")


def echo(table):
    rows = [row for row in table[1:] if row[1] in ("1,024", "102,400")]
    labels = [f"{row[0]}, {number(row[1]) / 1024:.0f} KiB" for row in rows]
    names = [("this loop", OURS, 3), ("uvloop", OTHERS[0], 4), ("rloop", OTHERS[1], 6)]
    series = [(name, c, [number(row[at]) for row in rows]) for name, c, at in names]
    bars("echo", labels, series, "echoes a second, as a share of a C epoll server's")


def tls(table):
    labels = [f"{name} at a time" for name in table[0][1:5]]
    colours = [OURS, OTHERS[2], OTHERS[0], OTHERS[1], GREY]
    best = [max(number(row[i]) for row in table[1:]) for i in range(1, 5)]
    series = [
        (row[0], colour, [number(row[i]) / best[i - 1] for i in range(1, 5)])
        for row, colour in zip(table[1:], colours, strict=True)
    ]
    bars("tls", labels, series, "echoes a second, as a share of the fastest")


PICTURES = {  # by the header's first cells
    ("row", "RPS"): overview,
    ("load", "a second"): zmq,
    ("\\", "1 in flight"): zmq_asyncio,
    ("row", "ours"): loop,
    ("row", "bytes"): echo,
    ("loop", "1 KiB, 1"): tls,
}


def main():
    (HERE / "plots").mkdir(exist_ok=True)
    for table in tables((HERE / "performance.rst").read_text()):
        draw = PICTURES.get(tuple(table[0][:2]))
        if draw is not None:
            draw(table)


if __name__ == "__main__":
    main()
