"""The components of the cluster and their command lines."""

from __future__ import annotations

from devcluster.layout import Layout
from devcluster.network import (
    API_SERVER_PORT,
    CLUSTER_DOMAIN,
    DNS_PORT,
    NODE_ADDRESS,
    NODE_NAME,
    SERVICE_SUBNET,
)
from devcluster.processes import Component

ETCD_CLIENTS = "http://127.0.0.1:12379"
_ETCD_PEERS = "http://127.0.0.1:12380"


def foundation(layout: Layout) -> tuple[Component, ...]:
    """What the API server and the kubelet need before they start."""
    return (
        Component(
            "containerd",
            ("containerd", "--config", f"{layout.configuration}/containerd.toml"),
        ),
        _ours(
            layout,
            "etcd",
            f"--data-dir={layout.cluster}/etcd",
            f"--client-url={ETCD_CLIENTS}",
            f"--peer-url={_ETCD_PEERS}",
        ),
    )


def api_server(layout: Layout) -> Component:
    certificates = layout.certificates
    return _ours(
        layout,
        "kube-apiserver",
        f"--etcd-servers={ETCD_CLIENTS}",
        f"--bind-address={NODE_ADDRESS}",
        f"--advertise-address={NODE_ADDRESS}",
        f"--secure-port={API_SERVER_PORT}",
        f"--service-cluster-ip-range={SERVICE_SUBNET}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={certificates}/ca.crt",
        f"--tls-cert-file={certificates}/apiserver.crt",
        f"--tls-private-key-file={certificates}/apiserver.key",
        f"--kubelet-certificate-authority={certificates}/ca.crt",
        f"--kubelet-client-certificate={certificates}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={certificates}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-signing-key-file={certificates}/service-account.key",
        f"--service-account-key-file={certificates}/service-account.pub",
        f"--requestheader-client-ca-file={certificates}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={certificates}/front-proxy-client.crt",
        f"--proxy-client-key-file={certificates}/front-proxy-client.key",
        f"--audit-policy-file={layout.configuration}/audit.yaml",
        f"--audit-log-path={layout.audit_log}",
        # In megabytes: what a benchmark reads at its end must not have been rotated away.
        "--audit-log-maxsize=4000",
        "--audit-log-maxbackup=1",
    )


def workers(layout: Layout) -> tuple[Component, ...]:
    """What makes a bare API server a cluster; started once the API server answers."""
    return (
        _controller_manager(layout),
        _scheduler(layout),
        _kubelet(layout),
        _ours(
            layout,
            "kube-proxy",
            f"--config={layout.configuration}/proxy.yaml",
            f"--hostname-override={NODE_NAME}",
        ),
        _ours(
            layout,
            "provisioner",
            f"--kubeconfig={layout.kubeconfig}",
            f"--directory={layout.volumes}",
        ),
        _ours(
            layout,
            "dns",
            f"--kubeconfig={layout.kubeconfig}",
            f"--address={NODE_ADDRESS}:{DNS_PORT}",
            f"--domain={CLUSTER_DOMAIN}",
        ),
    )


def _controller_manager(layout: Layout) -> Component:
    kubeconfig = layout.component_kubeconfig("controller-manager")
    certificates = layout.certificates
    return _ours(
        layout,
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--allocate-node-cidrs=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={certificates}/ca.crt",
        f"--service-account-private-key-file={certificates}/service-account.key",
        f"--cluster-signing-cert-file={certificates}/ca.crt",
        f"--cluster-signing-key-file={certificates}/ca.key",
        f"--flex-volume-plugin-dir={layout.cluster}/volume-plugins",
        # The defaults (20 and 30) would make every larger test wait for the controllers.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )


def _scheduler(layout: Layout) -> Component:
    kubeconfig = layout.component_kubeconfig("scheduler")
    return _ours(
        layout,
        "kube-scheduler",
        f"--config={layout.configuration}/scheduler.yaml",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
    )


def _kubelet(layout: Layout) -> Component:
    return _ours(
        layout,
        "kubelet",
        f"--config={layout.configuration}/kubelet.yaml",
        f"--kubeconfig={layout.component_kubeconfig('kubelet')}",
        f"--root-dir={layout.cluster}/kubelet",
        f"--cert-dir={layout.certificates}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
    )


def every_component(layout: Layout) -> tuple[Component, ...]:
    return (*foundation(layout), api_server(layout), *workers(layout))


def _ours(layout: Layout, name: str, *arguments: str) -> Component:
    """A component of our multi-call program."""
    return Component(name, (str(layout.program), name, *arguments))
