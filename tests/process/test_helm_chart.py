"""The chart for Kubernetes: linted and rendered by helm, and each object held against Kubernetes' own schemas.

.ci/run brings helm (MLFORGE_HELM); it is in no registry of Python. No cluster is at hand, so nothing is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.paths import ROOT

CHART = ROOT / "deploy" / "helm" / "mlforge"
KUBERNETES = ("1.27", "1.35")
PLACED = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "env": [
        {"name": "AWS_REGION", "value": "eu-west-1"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
    ],
    "resources": {"limits": {"memory": "3Gi"}},
    "startupSeconds": 601,
}
EVERYTHING = {
    "project": {"configMap": "shop", "profile": "prod"},
    "store": {"claim": "store"},
    "drops": {"claim": "drops"},
    "secrets": {"features": "features", "keys": "keys", "environment": "bucket"},
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"annotations": {"role": "shop"}},
    "watcher": PLACED,
    "worker": {"autoscaling": {"enabled": True}, **PLACED},
    "serve": {"autoscaling": {"enabled": True}, "port": 9000, "rootPath": "/shop", **PLACED},
}
LEAST = {
    "serviceAccount": {"name": "theirs"},
    "serve": {"enabled": False},
    "networkPolicy": {"enabled": False},
}

pytestmark = pytest.mark.slow


def helm(*arguments: str, values: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    found = os.environ.get("MLFORGE_HELM") or shutil.which("helm")
    if not found:
        pytest.skip("helm is not installed; .ci/run brings it (MLFORGE_HELM)")
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    return subprocess.run(
        [found, *arguments, "--values", str(file)], capture_output=True, text=True, check=False
    )


def rendered(values: dict[str, Any], folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    linted = helm("lint", "--strict", str(CHART), values=values, folder=folder)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    done = helm("template", "shop", str(CHART), values=values, folder=folder)
    assert done.returncode == 0, done.stderr
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def containers(objects: dict[tuple[str, str], dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    for (kind, _), each in objects.items():
        if kind == "Deployment":
            pod = each["spec"]["template"]["spec"]
            yield from ((pod, container) for container in pod["containers"])


@pytest.mark.parametrize("values", [{}, EVERYTHING, LEAST], ids=["as it is", "everything", "least"])
def test_each_object_is_one_that_kubernetes_takes_with_the_least_of_rights(
    values: dict[str, Any], tmp_path: Path
) -> None:
    objects = rendered(values, tmp_path)
    for release in KUBERNETES:
        for each in objects.values():
            kubernetes_validate.validate(each, release, strict=True)
    for pod, container in containers(objects):
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert not rights["allowPrivilegeEscalation"]
        assert all("://" not in variable.get("value", "") for variable in container["env"])
        assert {"startupProbe", "livenessProbe"} <= container.keys(), (
            "a process that hangs is not replaced"
        )


def test_selectors_ports_and_scaling_meet_what_they_name(tmp_path: Path) -> None:
    objects = rendered(EVERYTHING, tmp_path)
    pods = {
        name: (each["spec"]["template"]["metadata"]["labels"], each["spec"])
        for (kind, name), each in objects.items()
        if kind == "Deployment"
    }
    named = {
        port["name"] for _, container in containers(objects) for port in container.get("ports", ())
    }
    for (kind, name), each in objects.items():
        spec = each.get("spec", {})
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
            selector = spec.get("podSelector") or spec["selector"]
            wanted = selector.get("matchLabels", selector)
            assert sum(wanted.items() <= labels.items() for labels, _ in pods.values()) == 1, name
        if kind == "Service":
            assert {port["targetPort"] for port in spec["ports"]} <= named
        if kind == "NetworkPolicy":
            ports = [port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]]
            assert set(ports) <= named
        if kind == "HorizontalPodAutoscaler":
            _, scaled = pods[spec["scaleTargetRef"]["name"]]
            assert "replicas" not in scaled
    [serving] = [each for _, each in containers(objects) if each["name"] == "serve"]
    assert "--root-path=/shop" in serving["args"]
    [metric] = objects["HorizontalPodAutoscaler", "shop-mlforge-worker"]["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == "mlforge_queue_depth"


def test_each_part_runs_where_and_as_its_own_values_say_and_starts_in_the_time_that_it_is_given(
    tmp_path: Path,
) -> None:
    for pod, container in containers(rendered(EVERYTHING, tmp_path)):
        for field in ("nodeSelector", "tolerations", "affinity"):
            assert pod[field] == PLACED[field]
        assert container["env"][-2:] == PLACED["env"]
        assert container["resources"]["limits"]["memory"] == "3Gi"
        probe = container["startupProbe"]
        assert 601 <= probe["periodSeconds"] * probe["failureThreshold"] < 611
    pod, watcher = next(
        each for each in containers(rendered({}, tmp_path)) if each[1]["name"] == "watcher"
    )
    assert not {"nodeSelector", "tolerations", "affinity"} & pod.keys()
    probe = watcher["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1_800
    later = watcher["livenessProbe"]
    assert later["periodSeconds"] * later["failureThreshold"] == 1_800, "a look that is as long"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"wroker": {"replicas": 3}}, "wroker"),
        ({"worker": {"replicas": -1}}, "replicas"),
        ({"serve": {"port": 80}}, "port"),
        ({"serve": {"rootPath": "shop/"}}, "rootPath"),
        ({"watcher": {"startupSeconds": 0}}, "startupSeconds"),
        ({"worker": {"tolerations": {"key": "batch"}}}, "tolerations"),
        ({"secrets": {"redisUrl": ""}}, "redisUrl"),
    ],
)
def test_a_value_that_there_is_not_or_that_cannot_be_is_refused_by_its_name(
    values: dict[str, Any], named: str, tmp_path: Path
) -> None:
    done = helm("template", "shop", str(CHART), values=values, folder=tmp_path)
    assert done.returncode != 0
    assert named in done.stderr
