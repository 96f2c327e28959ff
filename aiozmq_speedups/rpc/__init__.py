"""Remote procedure calls over ZeroMQ."""
