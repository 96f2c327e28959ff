"""The wake-up descriptor of signals: once per run of a loop, so in Python.

A signal that arrives just before the loop waits must not be slept over, so in the
main thread the wake-up descriptor is always set while the loop runs; asyncio sets it
only for add_signal_handler().
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    _Base = asyncio.SelectorEventLoop
else:
    _Base = object


class Signals(_Base):
    """The part of the loop that signals wake."""

    _outer_wakeup_fd = -1  # whose place ours takes while the loop runs

    def _take_wakeup_fd(self) -> int:
        """Returns the descriptor to restore, -1 for none."""
        if threading.get_ident() != threading.main_thread().ident:
            return -1
        own_fd = self._csock.fileno()
        try:
            old_fd = signal.set_wakeup_fd(own_fd, warn_on_full_buffer=False)
        except ValueError:  # the main thread of a sub-interpreter
            return -1
        return -1 if old_fd == own_fd else old_fd

    def _give_back_wakeup_fd(self) -> None:
        old_fd, self._outer_wakeup_fd = self._outer_wakeup_fd, -1
        if self._signal_handlers:
            return  # they want it between runs too, as in asyncio
        if threading.get_ident() != threading.main_thread().ident:
            return
        # Ctrl-C may have come before _take_wakeup_fd() returned: ours must go
        # all the same, its number may be another file's soon.
        try:
            current = signal.set_wakeup_fd(-1)
        except ValueError:
            return
        if current != self._csock.fileno():
            old_fd = current  # a callback installed its own: it stays
        if old_fd != -1:
            try:
                # Nobody can ask whether its owner wanted a warning. Most ask for
                # none, and a warning that is missing harms less than one that is
                # written to the program's stderr.
                signal.set_wakeup_fd(old_fd, warn_on_full_buffer=False)
            except (ValueError, OSError):
                pass  # its owner closed it meanwhile

    def _handle_signal(self, sig: int) -> None:
        if sig not in self._signal_handlers and self._outer_wakeup_fd != -1:
            # The interpreter would have told the other, had we not asked.
            try:
                os.write(self._outer_wakeup_fd, bytes([sig]))
            except OSError:
                pass  # closed, or full
        super()._handle_signal(sig)

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a handler for a signal (asyncio loop.remove_signal_handler)."""
        removed: bool = super().remove_signal_handler(sig)
        if removed and self.is_running() and not self._signal_handlers:
            self._take_wakeup_fd()
        return removed
