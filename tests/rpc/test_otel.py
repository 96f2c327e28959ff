"""aiozmq_speedups.otel, by the SDK's in-memory exporters."""

import asyncio

import pytest
from parity import Implementation

from aiozmq_speedups import _ext, new_event_loop, rpc

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aiozmq_speedups.otel import RpcObserver, observe_loop

pytestmark = pytest.mark.loops("speedups")


class Telemetry:
    def __init__(self):
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = InMemoryMetricReader()
        self.meters = MeterProvider([self._metrics], shutdown_on_exit=False)
        self.observer = RpcObserver(
            tracer_provider=self.tracers, meter_provider=self.meters
        )

    async def spans(self, count):
        while len(self._spans.get_finished_spans()) < count:
            await asyncio.sleep(0.001)
        spans = self._spans.get_finished_spans()
        assert len(spans) == count
        return {span.kind.name: span for span in spans}

    def points(self):
        found = {}
        data = self._metrics.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found


@pytest.fixture
def telemetry():
    telemetry = Telemetry()
    yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


class Handler(rpc.AttrHandler):
    def __init__(self):
        self.seen = []

    def _see(self):
        self.seen.append(trace.get_current_span().get_span_context().span_id)

    @rpc.method
    def func(self):
        self._see()

    @rpc.method
    async def coro(self):
        await asyncio.sleep(0)
        self._see()

    @rpc.method
    def fails(self):
        self._see()
        raise LookupError("no")


@pytest.mark.parametrize("name", ["func", "coro", "fails"])
def test_spans_travel_with_the_call(loop, telemetry, name):
    handler = Handler()
    observed = {"observer": telemetry.observer}

    async def main():
        served = Implementation("aiozmq_speedups").served
        async with served("rpc", handler, server=observed, client=observed) as (
            client,
            _,
        ):
            tracer = trace.get_tracer("test", tracer_provider=telemetry.tracers)
            with tracer.start_as_current_span("outer") as outer:
                try:
                    await getattr(client.call, name)()
                except LookupError:
                    assert name == "fails"
            return outer, await telemetry.spans(3)

    outer, spans = loop.run_until_complete(main())
    client, server = spans["CLIENT"], spans["SERVER"]
    assert client.name == server.name == name
    assert client.parent.span_id == outer.get_span_context().span_id
    assert server.parent.span_id == client.context.span_id
    assert server.parent.is_remote
    assert handler.seen == [server.context.span_id]
    for span in (client, server):
        assert span.context.trace_id == outer.get_span_context().trace_id
        assert span.attributes["rpc.system"] == "aiozmq"
        assert span.attributes["rpc.method"] == name
        assert span.status.is_ok == (name != "fails")
        assert [event.name for event in span.events] == (
            ["exception"] if name == "fails" else []
        )
    points = telemetry.points()
    for side in ("client", "server"):
        [point] = points[f"rpc.{side}.duration"]
        assert point.count == 1
        error = "LookupError" if name == "fails" else None
        assert point.attributes.get("error.type") == error


def test_notifications(loop, telemetry):
    observed = {"observer": telemetry.observer}

    async def main():
        served = Implementation("aiozmq_speedups").served
        async with served("pipeline", Handler(), server=observed, client=observed) as (
            client,
            _,
        ):
            await client.notify.func()
            return await telemetry.spans(2)

    spans = loop.run_until_complete(main())
    assert set(spans) == {"PRODUCER", "CONSUMER"}


@pytest.mark.skipif(_ext.core is None, reason="no extension")
def test_loop_metrics(telemetry):
    loop = new_event_loop()
    observe_loop(loop, attributes={"loop": "main"}, meter_provider=telemetry.meters)
    loop.run_until_complete(asyncio.sleep(0.01))

    def values():
        found = {}
        for name, points in telemetry.points().items():
            [point] = points
            assert dict(point.attributes) == {"loop": "main"}
            found[name.removeprefix("aiozmq_speedups.loop.")] = point.value
        return found

    first = values()
    stats = loop.stats()
    assert first["turns"] == stats["turns"] > 0
    assert first["idle"] == stats["idle_ns"] / 1e9 > 0
    assert first["longest_turn"] > 0
    assert first["timers"] == 0
    second = values()
    assert second["longest_turn"] == 0  # since the last look
    assert second["turns"] == first["turns"]
    loop.close()
    telemetry.meters.shutdown()
