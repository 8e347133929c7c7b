"""HTTP/1.1: the protocol of a connection, its messages, streams and limits."""
