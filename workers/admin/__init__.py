"""The admin process: what is asked about the daemon, answered beside it."""
