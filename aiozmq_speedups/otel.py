"""OpenTelemetry: spans and durations of rpc calls, and a loop's figures.

Needs ``pip install aiozmq_speedups[otel]``, which brings opentelemetry-api; the SDK is
the program's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import opentelemetry.context as otel_context
import opentelemetry.metrics as metrics
import opentelemetry.propagate as propagate
import opentelemetry.trace as trace

from aiozmq_speedups._version import __version__
from aiozmq_speedups.rpc import ObservedCall, Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiozmq_speedups.loop import Loop

__all__ = ["RpcObserver", "observe_loop"]

_NAME = "aiozmq_speedups"
_SPAN_KINDS = {
    ("client", True): trace.SpanKind.CLIENT,
    ("server", True): trace.SpanKind.SERVER,
    ("client", False): trace.SpanKind.PRODUCER,
    ("server", False): trace.SpanKind.CONSUMER,
}


def _attributes(call: ObservedCall) -> dict[str, str]:
    return {
        "rpc.system": "aiozmq",
        "rpc.method": call.name,
        "aiozmq.kind": call.kind,
    }


class RpcObserver(Observer):
    """A span for each call, and its duration, at the side whose observer it is.

    With one at both sides the server's span is the child of the client's: what the
    global propagator makes of the client's travels with the call. Notifications carry
    nothing: their servers' spans begin traces of their own. A handler runs in its
    call's span. ``None`` stands for the global providers.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        self._durations = {
            side: meter.create_histogram(
                f"rpc.{side}.duration", "s", f"How long a call took at the {side}."
            )
            for side in ("client", "server")
        }

    def call_started(self, call: ObservedCall) -> None:
        is_rpc = call.kind == "rpc"
        parent = None  # the current one
        if call.side == "server":
            # Not what was current when the service was made.
            parent = propagate.extract(call.carrier, otel_context.Context())
        span = self._tracer.start_span(
            call.name,
            parent,
            _SPAN_KINDS[call.side, is_rpc],
            _attributes(call),
        )
        call.state = span
        if call.side == "server":
            # For the handler: the Context is the call's own.
            otel_context.attach(trace.set_span_in_context(span, parent))
        elif is_rpc:
            propagate.inject(call.carrier, trace.set_span_in_context(span))

    def call_ended(self, call: ObservedCall) -> None:
        attributes = _attributes(call)
        span = call.state
        if call.error is not None:
            attributes["error.type"] = type(call.error).__qualname__
            if span is not None:
                span.record_exception(call.error)
                span.set_status(trace.StatusCode.ERROR, str(call.error))
        if span is not None:
            span.end()
        self._durations[call.side].record(call.seconds or 0.0, attributes)


#: Of Loop.stats(): (name, whether it only grows, divided by, unit, what it is).
_LOOP_METRICS = (
    ("busy_ns", True, 1e9, "s", "Time that the loop worked."),
    ("idle_ns", True, 1e9, "s", "Time that the loop waited for events."),
    ("turns", True, 1, "{turn}", "Turns of the loop."),
    ("callbacks", True, 1, "{callback}", "Callbacks that ran."),
    ("bytes_received", True, 1, "By", "Payload that was received."),
    ("bytes_sent", True, 1, "By", "Payload that was sent."),
    ("ready", False, 1, "{callback}", "Callbacks that wait for their turn."),
    ("timers", False, 1, "{timer}", "Timers that are not due yet."),
    ("fds", False, 1, "{descriptor}", "Descriptors that are watched."),
    ("transports", False, 1, "{transport}", "Open transports."),
    ("zmq_transports", False, 1, "{transport}", "Open ZeroMQ transports."),
    ("longest_turn_ns", False, 1e9, "s", "The longest turn since the last look."),
    ("lag_ns", False, 1e9, "s", "How late timers were since the last look."),
)


class _Looks:
    """One look at stats() for all the instruments of a collection."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._seen: dict[str, int] = {}

    def take(self, name: str) -> int | None:
        # Who asks for the second time begins the next collection.
        if name not in self._seen:
            self._seen = self._loop.stats(reset=True)
        return self._seen.pop(name, None)


def observe_loop(
    loop: Loop,
    *,
    attributes: dict[str, str] | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Report what ``Loop.stats()`` says as ``aiozmq_speedups.loop.*``.

    The totals are observable counters, the rest observable gauges, times in seconds.
    ``attributes`` tell several loops apart. Each collection calls
    ``stats(reset=True)``, in whatever thread the SDK collects in. The provider keeps
    the loop alive.
    """
    meter = metrics.get_meter(_NAME, __version__, meter_provider)
    looks = _Looks(loop)

    def callback(name: str, divisor: float) -> Callable[..., Iterable[Any]]:
        def observe(options: Any) -> Iterable[Any]:
            value = looks.take(name)
            if value is not None:  # there are fewer without the C extension
                value_in_unit = value / divisor if divisor != 1 else value
                yield metrics.Observation(value_in_unit, attributes)

        return observe

    for name, grows, divisor, unit, what in _LOOP_METRICS:
        create = (
            meter.create_observable_counter if grows else meter.create_observable_gauge
        )
        create(
            f"aiozmq_speedups.loop.{name.removesuffix('_ns')}",
            [callback(name, divisor)],
            unit,
            what,
        )
