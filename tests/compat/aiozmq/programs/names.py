"""Every public name of aiozmq 1.0.0, by every way to import it."""

import importlib

import aiozmq
import aiozmq.core
import aiozmq.interface
import aiozmq.rpc
import aiozmq.rpc.base
import aiozmq.rpc.packer
import aiozmq.rpc.pipeline
import aiozmq.rpc.pubsub
import aiozmq.rpc.rpc
import aiozmq.rpc.util
import aiozmq.selector
import aiozmq.stream
from aiozmq import ZmqStream, create_zmq_connection, create_zmq_stream
from aiozmq.rpc import AttrHandler, method

NAMES = {
    "aiozmq": "ZmqSelector ZmqEventLoop ZmqEventLoopPolicy ZmqTransport ZmqProtocol "
    "ZmqStream ZmqStreamProtocol create_zmq_stream ZmqStreamClosed "
    "create_zmq_connection version_info version",
    "aiozmq.core": "ZmqEventLoop ZmqEventLoopPolicy create_zmq_connection SocketEvent",
    "aiozmq.interface": "ZmqTransport ZmqProtocol",
    "aiozmq.selector": "ZmqSelector",
    "aiozmq.stream": "ZmqStream ZmqStreamProtocol ZmqStreamClosed create_zmq_stream",
    "aiozmq.rpc": "method connect_rpc serve_rpc connect_pipeline serve_pipeline "
    "connect_pubsub serve_pubsub logger Error GenericError NotFoundError "
    "ParametersError AbstractHandler ServiceClosedError AttrHandler Service",
    "aiozmq.rpc.rpc": "RPCClient connect_rpc serve_rpc",
    "aiozmq.rpc.pipeline": "PipelineClient connect_pipeline serve_pipeline",
    "aiozmq.rpc.pubsub": "PubSubClient PubSubService connect_pubsub serve_pubsub",
    "aiozmq.rpc.base": "AbstractHandler AttrHandler Error GenericError NotFoundError "
    "ParametersError Service ServiceClosedError method",
}
for module_name, names in NAMES.items():
    module = importlib.import_module(module_name)
    missing = [name for name in names.split() if not hasattr(module, name)]
    print(module_name, missing)

assert aiozmq.ZmqStream is ZmqStream is aiozmq.stream.ZmqStream
assert aiozmq.rpc.method is method is aiozmq.rpc.base.method
assert create_zmq_connection is aiozmq.core.create_zmq_connection
assert create_zmq_stream is aiozmq.stream.create_zmq_stream
assert issubclass(AttrHandler, aiozmq.rpc.AbstractHandler)
print("DONE")
