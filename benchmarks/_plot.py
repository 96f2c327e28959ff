"""The bar plot of simple.py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

# Distinct for colour-blind readers too (Okabe and Ito's palette).
COLOURS = {
    "speedups-native": "#009E73",
    "speedups-c": "#D55E00",
    "speedups-python": "#E69F00",
    "aiozmq": "#0072B2",
    "pyzmq": "#999999",
}
LABELS = {
    "speedups-native": "aiozmq_speedups, its own engine",
    "speedups-c": "aiozmq_speedups, C on libzmq",
    "speedups-python": "aiozmq_speedups, pure Python",
    "aiozmq": "aiozmq",
    "pyzmq": "pyzmq without an event loop",
}


def save(
    rows: Sequence[dict[str, Any]],
    title: str,
    subtitle: str,
    path: str | os.PathLike[str],
    show: bool = False,
) -> None:
    """Draws the rows' mean rate with its confidence interval, fastest on top."""
    import matplotlib

    if not show:
        # No window system is needed to write a file.
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    ordered = sorted(rows, key=lambda row: float(row["rps"]["mean"]))
    rates = [row["rps"]["mean"] for row in ordered]
    errors = [
        [row["rps"]["mean"] - row["rps"]["low"] for row in ordered],
        [row["rps"]["high"] - row["rps"]["mean"] for row in ordered],
    ]
    figure, axes = plt.subplots(
        figsize=(11, 2.2 + 0.36 * len(ordered)), layout="constrained"
    )
    axes.barh(
        range(len(ordered)),
        rates,
        xerr=errors,
        color=[COLOURS[row["family"]] for row in ordered],
        error_kw={"ecolor": "black", "elinewidth": 1.2, "capsize": 3},
        height=0.72,
    )
    limit = max(row["rps"]["high"] for row in ordered) * 1.12
    for position, row in enumerate(ordered):
        axes.text(
            max(row["rps"]["high"], 0) + limit * 0.008,
            position,
            f"{row['rps']['mean']:,.0f}",
            va="center",
            fontsize=9,
        )
    axes.set_xlim(0, limit)
    axes.set_yticks(range(len(ordered)), [row["name"] for row in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlabel("round trips per second (mean, 95 % confidence interval)")
    axes.set_ylabel("implementation")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=13)
    axes.set_title(subtitle, fontsize=8, color="#444444", wrap=True)
    present = {row["family"] for row in ordered}
    axes.legend(
        handles=[
            Patch(color=COLOURS[family], label=LABELS[family])
            for family in COLOURS
            if family in present
        ],
        loc="lower right",
        framealpha=0.9,
    )
    figure.savefig(path, dpi=160)
    if show:
        plt.show()
    plt.close(figure)
