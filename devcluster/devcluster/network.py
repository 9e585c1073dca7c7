"""The cluster's addresses, and the traces they leave in this machine's network settings."""

from __future__ import annotations

import json
from pathlib import Path

from devcluster.progress import ClusterError
from devcluster.shell import output

NODE_NAME = "devcluster"
INTERFACE = "tunesmith0"
# On an interface of our own: every server listens here or on the loopback address, and nothing
# depends on which network the machine is in.
NODE_ADDRESS = "10.244.255.1"
POD_SUBNET = "10.244.0.0/24"
SERVICE_SUBNET = "10.96.0.0/16"
# Of pods on simulated nodes: nobody is there, and the machine itself says so at once.
SIMULATED_SUBNET = "10.245.0.0/16"
SERVICE_OF_API_SERVER = "10.96.0.1"
API_SERVER_PORT = 6443
KUBELET_HEALTH_PORT = 10248
DNS_PORT = 53
CLUSTER_DOMAIN = "cluster.local"
POD_NETWORK = "tunesmith-pods"
API_SERVER_URL = f"https://{NODE_ADDRESS}:{API_SERVER_PORT}"

# Kernel settings that the kubelet and kube-proxy change: `down` puts them back.
KERNEL_SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_PROC = Path("/proc/sys")


def interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def create_interface() -> None:
    """Give the machine the node's address, and a route that sends Services' addresses its way."""
    if INTERFACE not in interfaces():
        output(["ip", "link", "add", INTERFACE, "type", "bridge"])
    output(["ip", "address", "replace", f"{NODE_ADDRESS}/32", "dev", INTERFACE])
    output(["ip", "link", "set", INTERFACE, "up"])
    # Without it the host could reach a Service only where it has a default route.
    output(["ip", "route", "replace", SERVICE_SUBNET, "dev", INTERFACE, "src", NODE_ADDRESS])
    # Without it, what is sent to a simulated pod would leave the machine, and wait for an answer.
    output(["ip", "route", "replace", "local", SIMULATED_SUBNET, "dev", INTERFACE])
    (_PROC / "net/ipv4/ip_forward").write_text("1")


def remove_interface() -> None:
    if INTERFACE in interfaces():
        output(["ip", "link", "delete", INTERFACE])


def kernel_settings() -> dict[str, str]:
    return {
        name: (_PROC / name).read_text().strip()
        for name in KERNEL_SETTINGS
        if (_PROC / name).exists()
    }


def restore_kernel_settings(values: dict[str, str]) -> None:
    now = kernel_settings()
    for name, value in values.items():
        if now.get(name, value) != value:
            (_PROC / name).write_text(value)


def pod_network(state: Path) -> str:
    """CNI configuration: a routed virtual cable per pod.

    Routed, not bridged: every packet between two pods then passes the host's netfilter, so a
    Service's address translation is undone on the way back without br_netfilter.
    """
    address_management = {
        "type": "host-local",
        "dataDir": str(state),
        "ranges": [[{"subnet": POD_SUBNET}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": address_management}]
    return json.dumps({"cniVersion": "0.4.0", "name": POD_NETWORK, "plugins": plugins}, indent=1)


def packet_rules(family: str) -> list[str]:
    """The packet filter's rules without counters, of `iptables` or `ip6tables`."""
    saved = output([f"{family}-save"])
    return [line for line in saved.splitlines() if line.startswith((":KUBE-", "-A "))]


def remove_packet_rules() -> None:
    """Delete the KUBE-* chains that the kubelet and kube-proxy made, and what leads to them."""
    for family in ("iptables", "ip6tables"):
        try:
            saved = output([f"{family}-save"])
        except ClusterError:
            continue  # a kernel without IPv6 has no such table
        script = _removal_script(saved)
        if script:
            output([f"{family}-restore", "--noflush"], stdin=script)


def _removal_script(saved: str) -> str:
    script: list[str] = []
    jumps: list[str] = []
    chains: list[str] = []
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table, jumps, chains = line, [], []
        elif line.startswith(":KUBE-"):
            chains.append(line[1:].split()[0])
        elif line.startswith("-A ") and not line.startswith("-A KUBE-") and " KUBE-" in line:
            jumps.append("-D " + line.removeprefix("-A "))
        elif line == "COMMIT" and (jumps or chains):
            flushed = [f"-F {chain}" for chain in chains]
            deleted = [f"-X {chain}" for chain in chains]
            script += [table, *jumps, *flushed, *deleted, "COMMIT"]
    return "\n".join(script) + "\n" if script else ""
