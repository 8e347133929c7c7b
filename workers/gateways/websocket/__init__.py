"""WebSockets of ASGI apps."""
