"""The components' configuration files."""

from __future__ import annotations

import base64
import json

from devcluster.control_groups import GROUP
from devcluster.layout import CONTAINERD_SOCKET, RUN_DIRECTORY, Layout
from devcluster.mounts import Shared
from devcluster.network import (
    API_SERVER_URL,
    CLUSTER_DOMAIN,
    KUBELET_HEALTH_PORT,
    NODE_ADDRESS,
    POD_SUBNET,
    pod_network,
)
from devcluster.packages import CNI_PLUGINS
from devcluster.shell import output

PAUSE_IMAGE = "tunesmith.dev/pause:dev"
# Client identities of the certificates that `devcluster pki` writes.
ADMIN = "admin"
IDENTITIES = (ADMIN, "controller-manager", "scheduler", "proxy", "kubelet")


def write_configuration(layout: Layout, shared: tuple[Shared, ...]) -> None:
    """Write what has changed: kube-proxy ends when its file is written, even with the same text."""
    folder = layout.configuration
    files = {
        folder / "cni" / "10-pods.conflist": pod_network(RUN_DIRECTORY / "cni"),
        # Empty: pods ask for the cluster's names alone, and no server outside.
        folder / "resolv.conf": "",
        folder / "registries" / "_default" / "hosts.toml": _NO_REGISTRY,
        layout.container_defaults: container_defaults(shared),
        folder / "containerd.toml": _containerd(layout),
        folder / "audit.yaml": json.dumps(_AUDIT_POLICY, indent=1),
        folder / "kubelet.yaml": json.dumps(_kubelet(layout), indent=1),
        folder / "scheduler.yaml": json.dumps(_scheduler(layout), indent=1),
        folder / "proxy.yaml": json.dumps(_proxy(layout), indent=1),
        layout.kubeconfig: _kubeconfig(layout, ADMIN),
    }
    for identity in IDENTITIES:
        files[layout.component_kubeconfig(identity)] = _kubeconfig(layout, identity)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    layout.kubeconfig.chmod(0o600)


def container_defaults(shared: tuple[Shared, ...]) -> str:
    """What containerd starts every container from: its own defaults and the shared folders."""
    defaults = json.loads(output(["ctr", "oci", "spec"]))
    # The default of 1024 open files would replace the machine's own limit.
    del defaults["process"]["rlimits"]
    defaults["mounts"] += [
        {
            "destination": str(each.destination),
            "source": str(each.source),
            "type": "bind",
            "options": ["rbind", "ro", "nosuid", "nodev", "rprivate"],
        }
        for each in shared
    ]
    return json.dumps(defaults, indent=1)


# Every pull asks a port that nothing listens on, and fails at once: no request leaves the machine.
_NO_REGISTRY = 'server = "http://127.0.0.1:1"\n'


def _containerd(layout: Layout) -> str:
    criplugin = 'plugins."io.containerd.grpc.v1.cri"'
    runtime = f"{criplugin}.containerd.runtimes.runc"
    return f"""version = 2
root = "{layout.cluster}/containerd"
state = "{RUN_DIRECTORY}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "{layout.cluster}/containerd-programs"

[{criplugin}]
sandbox_image = "{PAUSE_IMAGE}"
stream_server_address = "127.0.0.1"
netns_mounts_under_state_dir = true
tolerate_missing_hugetlb_controller = true
# A root user without CAP_SYS_RESOURCE may not make a process safer from the out-of-memory killer.
restrict_oom_score_adj = true

[{criplugin}.cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{layout.configuration}/cni"

[{criplugin}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[{criplugin}.registry]
config_path = "{layout.configuration}/registries"

[{runtime}]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{layout.container_defaults}"

[{runtime}.options]
SystemdCgroup = false
Root = "{RUN_DIRECTORY}/runc"
"""


def _kubelet(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{GROUP}",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "address": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": KUBELET_HEALTH_PORT,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{layout.certificates}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{layout.certificates}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{layout.certificates}/kubelet-server.key",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": f"{layout.configuration}/resolv.conf",
        "podLogsDir": f"{layout.cluster}/pod-logs",
        "volumePluginDir": f"{layout.cluster}/volume-plugins",
        "failSwapOn": False,
        "serializeImagePulls": False,
        "maxPods": 110,
        # The machine is a person's or a test's own: use it to the end before evicting anything.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "200Mi",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "200Mi",
        },
        # Images are not pulled from anywhere: one collected as garbage would be gone for good.
        "imageGCHighThresholdPercent": 100,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
        "syncFrequency": "20s",
        "nodeStatusUpdateFrequency": "5s",
    }


def _scheduler(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(layout.component_kubeconfig("scheduler")),
            "qps": 500,
            "burst": 1000,
        },
    }


def _proxy(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {
            "kubeconfig": str(layout.component_kubeconfig("proxy")),
            "qps": 200,
            "burst": 400,
        },
        "clusterCIDR": POD_SUBNET,
        "bindAddress": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # Only the node's own address: never the network that the machine itself is in.
        "nodePortAddresses": ["primary"],
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s", "localhostNodePorts": False},
        # Zero leaves the machine's connection tracking as it is.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }


# Every request that reached the API server, without bodies: enough to count calls by user, verb
# and resource. With the body only where a Job makes a pod: whose it is stands nowhere else, as its
# name is made up later.
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Request",
            "users": ["system:serviceaccount:kube-system:job-controller"],
            "verbs": ["create"],
            "resources": [{"group": "", "resources": ["pods"]}],
        },
        {"level": "Metadata"},
    ],
}


def _kubeconfig(layout: Layout, identity: str) -> str:
    """Access as one identity; the certificates lie inside, so that the file can be copied."""

    def content(name: str) -> str:
        return base64.b64encode((layout.certificates / name).read_bytes()).decode()

    return f"""apiVersion: v1
kind: Config
current-context: devcluster
clusters:
- name: devcluster
  cluster:
    server: {API_SERVER_URL}
    certificate-authority-data: {content("ca.crt")}
users:
- name: {identity}
  user:
    client-certificate-data: {content(f"{identity}.crt")}
    client-key-data: {content(f"{identity}.key")}
contexts:
- name: devcluster
  context:
    cluster: devcluster
    user: {identity}
"""
