"""Behind an nginx that tries no request again (`proxy_next_upstream off`) the restarts of deploy/README.md lose none.

The third way, `systemctl restart` of a service whose socket is systemd's, is in test_systemd_units.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.daemon import BOOT, ROOT, SHORT_TRIAL, Daemon
from tests.e2e.deadline import until
from tests.e2e.test_load_balancers import NGINX, loaded, nginx, pids, restart, wait_share, wait_used
from tests.e2e.test_upgrade import upgrade

pytestmark = pytest.mark.parallel


def without_retries() -> str:
    """The configuration that is shipped, but for that."""
    text, replaced = re.subn(r"proxy_next_upstream error timeout;", "proxy_next_upstream off;", NGINX.read_text())
    assert replaced == 1
    return text


OUT, IN = re.findall(r"^    (sed -i .*) && nginx -s reload$", (ROOT / "deploy" / "README.md").read_text(), re.MULTILINE)
SHIPPED = "127.0.0.1:8001", "/etc/nginx/conf.d/preforkd.conf"


def put(folder: Path, instance: Daemon, command: str) -> None:
    """Take an instance out of nginx or in again, by the command of deploy/README.md; wait until all of nginx knows."""
    config = folder / "preforkd.conf"
    for shipped, ours in zip(SHIPPED, (f"127.0.0.1:{instance.port}", str(config)), strict=True):
        assert shipped in command
        command = command.replace(shipped, ours)
    before = config.read_text()
    subprocess.run(command, shell=True, check=True, timeout=10)
    assert config.read_text() != before
    master = psutil.Process(int((folder / "nginx.pid").read_text()))
    old = set(master.children())
    os.kill(master.pid, signal.SIGHUP)
    until(lambda: (now := set(master.children())) and not now & old, BOOT, "nginx has new workers and no old ones")


def test_restarts_of_instances_that_nginx_was_told_of_lose_nothing(start: Start, tmp_path: Path) -> None:
    instances = [start(), start()]
    lives = [pids(instance) for instance in instances]
    # Each request has its own connection: nginx's reload closes those that clients keep, whatever is on its way.
    with (
        nginx(instances[0].port, instances[1].port, tmp_path, without_retries()) as balanced,
        loaded(balanced, one_shot=8) as result,
    ):
        for instance in instances:
            wait_used(balanced, instance)
            put(tmp_path, instance, OUT)
            again = restart(instance, start)
            lives.append(pids(again))
            put(tmp_path, again, IN)
        wait_share(again)
    served = {int(body.split()[1]) for body in result.bodies}
    assert all(served & life for life in lives), "each life of each instance has had its share of the load"


def test_upgrades_in_place_lose_nothing(start: Start, tmp_path: Path) -> None:
    instances = [start(*SHORT_TRIAL), start(*SHORT_TRIAL)]
    lives = [pids(instance) for instance in instances]
    with (
        nginx(instances[0].port, instances[1].port, tmp_path, without_retries()) as balanced,
        loaded(balanced) as result,
    ):
        for instance in instances:
            wait_used(balanced, instance)
            upgrade(instance)
            lives.append({worker.pid for worker in instance.wait_workers(2, but=set().union(*lives))})
            wait_share(instance)
    served = {int(body.split()[1]) for body in result.bodies}
    assert all(served & life for life in lives), "each life of each instance has had its share of the load"
