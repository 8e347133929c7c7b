"""What a generation is made with: the configuration, and the listeners of the workers and of the admin process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from preforkd.daemon.address import TcpAddress, UnixAddress
from preforkd.daemon.admin import Plan
from preforkd.daemon.config import Config
from preforkd.daemon.listeners import Listener
from preforkd.daemon.options import Options
from preforkd.workers.admin.settings import AdminSettings
from preforkd.workers.records import dataclass


@dataclass(frozen=True, slots=True)
class Setup:
    """What a generation is made with."""

    config: Config
    listeners: tuple[Listener, ...]
    """What the workers accept on."""
    admin: tuple[Listener, ...]
    """What the admin process accepts on."""

    @classmethod
    def of(cls, config: Config, bound: Sequence[Listener]) -> Setup:
        """Return the set-up with these listeners, of both kinds."""
        admin = tuple(one for one in bound if one.address in config.options.admin)
        return cls(config, tuple(one for one in bound if one not in admin), admin)

    def urls(self) -> list[str]:
        """Where clients find it. A listener that has stayed over a reload may speak TLS only since then."""
        now = {address: address for address in self.config.options.bind}
        return [one.url_of(now.get(one.address, one.address)) for one in self.listeners]

    def admin_plan(self) -> Plan | None:
        """Return what the admin process is begun with; None: nobody wants one."""
        options = self.config.options
        if not options.counting:
            return None
        settings = AdminSettings(
            app=options.app,
            owner=os.getuid(),
            listeners=tuple(self.urls()),
            statsd=tuple((a.host, a.port) if isinstance(a, TcpAddress) else (a.path, 0) for a in _reachable(options)),
            statsd_prefix=options.statsd_prefix,
            statsd_tags=options.statsd_tags,
        )
        return Plan(settings, self.admin, self.config, self.config.identity, (options.log_level, options.log_format))


def _reachable(options: Options) -> Iterator[TcpAddress | UnixAddress]:
    """Yield the addresses of StatsD; the option takes no others."""
    yield from (address for address in options.statsd if isinstance(address, TcpAddress | UnixAddress))
