"""The benchmarks of aiozmq_speedups; README.rst says how to repeat them.

The repository's own folder moves to the end of ``sys.path``: an installed
aiozmq_speedups, which has its extension, is preferred to the bare sources.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != ROOT]
sys.path.append(str(ROOT))
