"""Rolling restarts behind a real HAProxy and a real nginx, with the configurations that are shipped: nobody notices."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Authority, needs_openssl
from tests.e2e import client
from tests.e2e.conftest import Start
from tests.e2e.daemon import BOOT, ROOT, SHORT_TRIAL, Daemon, free_port, listens
from tests.e2e.deadline import until
from tests.e2e.load import Result, load
from tests.e2e.websocket_client import RawWebSocket, frame

HAPROXY = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
NGINX = ROOT / "deploy" / "nginx" / "preforkd.conf"
NGINX_MAIN = """\
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/preforkd.conf;
}}
"""


def program(name: str, package: str) -> str:
    """Where the load balancer is; without it, its tests are skipped and say what would make them run."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed: install the Debian package {package}")
    return path


def checked(command: list[str], environment: Mapping[str, str]) -> None:
    """The load balancer's own check of a configuration: it is good, and nothing in it is doubtful."""
    check = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30)
    assert check.returncode == 0, check.stderr
    assert "[warn" not in check.stderr.lower(), check.stderr


@contextmanager
def running(command: list[str], environment: Mapping[str, str], port: int) -> Iterator[int]:
    """A load balancer that answers at its port."""
    with subprocess.Popen(command, env={**os.environ, **environment}) as process:
        try:
            until(lambda: process.poll() is not None or listens(port), BOOT, f"{command[0]} at port {port}")
            assert process.poll() is None, f"{command[0]} has died"
            yield port
            assert process.poll() is None, f"{command[0]} has died"
        finally:
            process.terminate()


@contextmanager
def haproxy(first: int, second: int, file: Path = HAPROXY, health_path: str = "/") -> Iterator[int]:
    """HAProxy with deploy/haproxy/haproxy.cfg, its variables set as the file says."""
    path, port = program("haproxy", "haproxy"), free_port()
    variables = {
        "FRONTEND": f"127.0.0.1:{port}",
        "INSTANCE_A": f"127.0.0.1:{first}",
        "INSTANCE_B": f"127.0.0.1:{second}",
        "HEALTH_PATH": health_path,
    }
    checked([path, "-c", "-f", str(file)], variables)
    with running([path, "-db", "-f", str(file)], variables, port):
        yield port


@contextmanager
def nginx(first: int, second: int, folder: Path, text: str = "") -> Iterator[int]:
    """Nginx with a copy of deploy/nginx/preforkd.conf or another text, in which the three addresses are replaced."""
    path, port = program("nginx", "nginx-light"), free_port()
    text = text or NGINX.read_text()
    for shipped, ours in {"8001": first, "8002": second, "8080": port}.items():
        assert text.count(f"127.0.0.1:{shipped}") == 1, f"the configuration names port {shipped} once"
        text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{ours}")
    (folder / "preforkd.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX_MAIN.format(folder=folder))
    command = [path, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    checked([*command, "-t"], {})
    with running(command, {}, port):
        yield port


def restart(instance: Daemon, start: Start, *options: str) -> Daemon:
    """TERM, wait for the exit, start another one in its place, wait until it is ready."""
    assert instance.stop() == 0
    return start(*options, port=instance.port)


def pids(instance: Daemon) -> set[int]:
    """The workers of an instance, once there are both."""
    return {worker.pid for worker in instance.wait_workers(2)}


def wait_used(balanced: int, instance: Daemon) -> None:
    """Until the load balancer sends requests to an instance."""
    workers = pids(instance)

    def look() -> bool:
        answer = client.get(balanced)
        return answer.status == 200 and int(answer.text.split()[1]) in workers

    instance.until(look, BOOT, f"an answer of one of {workers} through the load balancer")


@contextmanager
def loaded(balanced: int, one_shot: int = 4) -> Iterator[Result]:
    """Eight clients, with a POST as every other request; none may fail.

    Args:
        balanced: the port of the load balancer.
        one_shot: how many of them open a connection for each request; the others keep theirs.
    """
    with load(balanced, clients=8, one_shot=one_shot, post=2000) as result:
        yield result
    assert result.failed == 0, result.describe()
    assert any(body.endswith(" 2000") for body in result.bodies), "no POST was answered"


def wait_share(instance: Daemon) -> None:
    """Until an instance has answered requests of the load, which its log shows: `wait_used` has seen its own."""
    since = instance.mark()
    instance.until(lambda: instance.log()[since:].count('"GET / HTTP/1.1" 200') >= 50, BOOT, "the load's requests")


def rolling_restart(balanced: int, instances: list[Daemon], start: Start, *options: str, wait: bool) -> None:
    """Load while each instance is restarted in turn.

    Args:
        balanced: the port of the load balancer.
        instances: the daemons behind it.
        start: the fixture.
        options: of the daemons.
        wait: restart the second one only when the load balancer uses the first one again.
    """
    for instance in instances:
        wait_used(balanced, instance)
    lives = [pids(instance) for instance in instances]
    with loaded(balanced) as result:
        for instance in instances:
            again = restart(instance, start, *options)
            lives.append(pids(again))
            if wait:
                wait_used(balanced, again)
        wait_used(balanced, again)
        wait_share(again)
    assert result.slowest < 0.9, f"nobody waits longer than for HAProxy's pause: {result.describe()}"
    served = {int(body.split()[1]) for body in result.bodies}
    assert all(served & life for life in lives), "each life of each instance has had its share of the load"


def reloads(balanced: int, instances: list[Daemon]) -> None:
    """Load while each instance is told HUP, in turn."""
    for instance in instances:
        wait_used(balanced, instance)
    with loaded(balanced) as result:
        old = [pids(instance) for instance in instances]
        for instance in instances:
            mark = instance.mark()
            instance.signal(signal.SIGHUP)
            for slot in range(2):
                instance.wait_log(rf"worker {slot} \(generation 2\) is ready", since=mark)
        for instance, left in zip(instances, old, strict=True):
            instance.until(lambda: not left & {worker.pid for worker in instance.workers()}, BOOT, "the old ones leave")  # noqa: B023 - called at once
            wait_used(balanced, instance)
    assert len({body.split()[1] for body in result.bodies}) >= 6, f"old and new workers served: {result.bodies}"


def without_retries(file: Path) -> Path:
    """HAProxy's configuration with every kind of retry taken out."""
    text, replaced = re.subn(r"^ *retries \d+$", "    retries 0", HAPROXY.read_text(), flags=re.MULTILINE)
    text, removed = re.subn(r"^ *(option redispatch|retry-on) .*$", "", text, flags=re.MULTILINE)
    assert (replaced, removed) == (1, 2)
    file.write_text(text)
    return file


@pytest.mark.parallel
@pytest.mark.parametrize("retries", [True, False])
def test_reloads_behind_haproxy_cost_no_request(start: Start, tmp_path: Path, *, retries: bool) -> None:
    instances = [start(*SHORT_TRIAL), start(*SHORT_TRIAL)]
    file = HAPROXY if retries else without_retries(tmp_path / "haproxy.cfg")
    with haproxy(instances[0].port, instances[1].port, file) as balanced:
        reloads(balanced, instances)


@pytest.mark.parallel
@pytest.mark.parametrize("retries", [True, False])
def test_reloads_behind_nginx_cost_no_request(start: Start, tmp_path: Path, *, retries: bool) -> None:
    instances = [start(*SHORT_TRIAL), start(*SHORT_TRIAL)]
    text, replaced = re.subn(r"proxy_next_upstream error timeout;", "proxy_next_upstream off;", NGINX.read_text())
    assert replaced == 1
    with nginx(instances[0].port, instances[1].port, tmp_path, "" if retries else text) as balanced:
        reloads(balanced, instances)


def test_a_rolling_restart_behind_haproxy_costs_no_request(start: Start) -> None:
    instances = [start(), start()]
    with haproxy(instances[0].port, instances[1].port) as balanced:
        rolling_restart(balanced, instances, start, wait=True)


def test_with_drain_delay_and_health_path_haproxy_needs_no_retries_and_no_pause(start: Start, tmp_path: Path) -> None:
    options = ("--drain-delay", "3", "--health-path", "/healthz")
    instances = [start(*options), start(*options)]
    file = without_retries(tmp_path / "haproxy.cfg")
    with haproxy(instances[0].port, instances[1].port, file, "/healthz") as balanced:
        rolling_restart(balanced, instances, start, *options, wait=False)


def test_a_rolling_restart_behind_nginx_costs_no_request(start: Start, tmp_path: Path) -> None:
    instances = [start(), start()]
    with nginx(instances[0].port, instances[1].port, tmp_path) as balanced:
        rolling_restart(balanced, instances, start, wait=False)


@pytest.mark.parallel
@needs_openssl
def test_haproxy_and_nginx_speak_tls_to_it_and_verify_it(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "shop.test")
    proxies = authority.issue("proxy")
    options = ["--certfile", str(certificate), "--keyfile", str(key)]
    options += ["--ca-certs", str(authority.certificate), "--cert-reqs", "required"]
    instances = [start(*options), start(*options)]
    both = tmp_path / "proxy.pem"
    both.write_text("".join(path.read_text() for path in proxies))
    secure = f"ssl verify required ca-file {authority.certificate} crt {both} sni str(shop.test) check-sni shop.test"
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY.read_text().replace("    default-server check ", f"    default-server {secure} check "))
    assert secure in config.read_text()
    with haproxy(instances[0].port, instances[1].port, config) as balanced:
        wait_used(balanced, instances[0])
        with load(balanced, clients=4, requests=200) as result:
            pass
        assert result.failed == 0, result.describe()
    folder = tmp_path / "nginx"
    folder.mkdir()
    secure = (
        f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {authority.certificate}; proxy_ssl_name shop.test; "
        f"proxy_ssl_server_name on; proxy_ssl_certificate {proxies[0]}; proxy_ssl_certificate_key {proxies[1]};"
    )
    shipped = NGINX.read_text()
    text = shipped.replace("proxy_pass http://", f"{secure} proxy_pass https://")
    assert text != shipped
    with nginx(instances[0].port, instances[1].port, folder, text) as balanced:
        wait_used(balanced, instances[0])
        with load(balanced, clients=4, requests=200) as result:
            pass
        assert result.failed == 0, result.describe()


@pytest.mark.parallel
def test_websockets_pass_through_the_configurations_that_are_shipped(start: Start, tmp_path: Path) -> None:
    app = f"{ROOT / 'tests' / 'apps' / 'behind.py'}:app"
    instances = [start(app=app, workers=1), start(app=app, workers=1)]
    ports = instances[0].port, instances[1].port
    for balancer in (haproxy(*ports), nginx(*ports, tmp_path)):
        with balancer as balanced, RawWebSocket(balanced, "/echo") as socket:
            socket.send(frame(1, b"hello"))
            reply = socket.reply()
            assert reply is not None
            assert reply.payload == b"hello"


@pytest.mark.parallel
def test_the_other_ways_to_an_instance_that_the_configurations_show_are_accepted(tmp_path: Path) -> None:
    path, text = program("haproxy", "haproxy"), HAPROXY.read_text()
    others = re.findall(r"^    # (server a .*)$", text, re.MULTILINE)
    assert len(others) == 4
    for other in others:
        file = tmp_path / "haproxy.cfg"
        file.write_text(text.replace('    server a "${INSTANCE_A}"\n', f"    {other}\n"))
        assert file.read_text() != text
        checked([path, "-c", "-f", str(file)], {})
    path, text = program("nginx", "nginx-light"), NGINX.read_text()
    (other,) = re.findall(r"^    # (server unix:.*)$", text, re.MULTILINE)
    (tmp_path / "preforkd.conf").write_text(text.replace("server 127.0.0.1:8001 max_fails=0;", other))
    assert (tmp_path / "preforkd.conf").read_text() != text
    (tmp_path / "nginx.conf").write_text(NGINX_MAIN.format(folder=tmp_path))
    checked([path, "-e", "stderr", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-t"], {})
