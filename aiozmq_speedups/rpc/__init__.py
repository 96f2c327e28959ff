"""Remote procedure calls over ZeroMQ.

Three kinds of services, with the API and the wire format of ``aiozmq.rpc``:
request and reply (:func:`serve_rpc`, :func:`connect_rpc`), notifications
(:func:`serve_pipeline`, :func:`connect_pipeline`) and publish/subscribe
(:func:`serve_pubsub`, :func:`connect_pubsub`).
"""

from ._observe import ObservedCall, Observer
from .base import (
    AbstractHandler,
    AttrHandler,
    Error,
    GenericError,
    NotFoundError,
    ParametersError,
    Service,
    ServiceClosedError,
    TooManyCallsError,
    method,
)
from .log import logger
from .pipeline import connect_pipeline, serve_pipeline
from .pubsub import connect_pubsub, serve_pubsub
from .rpc import connect_rpc, serve_rpc

__all__ = [
    "AbstractHandler",
    "AttrHandler",
    "Error",
    "GenericError",
    "NotFoundError",
    "ObservedCall",
    "Observer",
    "ParametersError",
    "Service",
    "ServiceClosedError",
    "TooManyCallsError",
    "connect_pipeline",
    "connect_pubsub",
    "connect_rpc",
    "logger",
    "method",
    "serve_pipeline",
    "serve_pubsub",
    "serve_rpc",
]
