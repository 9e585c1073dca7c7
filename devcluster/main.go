// Command devcluster is every component of a single-node Kubernetes in one binary.
//
// The first argument picks the component; the rest are that component's own arguments, which
// upstream's unpatched command parses. Each component runs as a process of its own, so that a
// test can kill one of them and leave the others alone.
package main

import (
	"fmt"
	"os"
	"sort"
)

// components maps a subcommand to what runs it; each returns the exit status of the process.
var components = map[string]func() int{
	"etcd":                    runEtcd,
	"kube-apiserver":          runAPIServer,
	"kube-controller-manager": runControllerManager,
	"kube-scheduler":          runScheduler,
	"kubelet":                 runKubelet,
	"kube-proxy":              runProxy,
	"kubectl":                 runKubectl,
	"pki":                     runCertificates,
	"provisioner":             runProvisioner,
	"dns":                     runDNS,
}

func main() {
	if len(os.Args) < 2 {
		usage()
		os.Exit(2)
	}
	run, known := components[os.Args[1]]
	if !known {
		fmt.Fprintf(os.Stderr, "devcluster: unknown component %q\n", os.Args[1])
		usage()
		os.Exit(2)
	}
	// Upstream's commands read os.Args themselves: the component's name takes the place of ours.
	os.Args = os.Args[1:]
	os.Exit(run())
}

func usage() {
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Fprintln(os.Stderr, "usage: devcluster COMPONENT [ARGUMENT ...]; the components are:")
	for _, name := range names {
		fmt.Fprintln(os.Stderr, "  "+name)
	}
}
