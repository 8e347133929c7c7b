"""What an ASGI app gets to hear when it breaks the protocol."""


class AsgiProtocolError(RuntimeError):
    """The app has sent a message that cannot be sent now, or is none."""
