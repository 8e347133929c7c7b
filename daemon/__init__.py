"""The master: it binds the sockets, forks the workers, and never touches a request."""

__version__ = "0.1.0"
