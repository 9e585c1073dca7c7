package main

import (
	"context"
	"net/netip"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

// directory knows the addresses behind the cluster's names.
type directory struct {
	suffix   string
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// record is what a name stands for; a name may exist and have no address.
type record struct {
	addresses [][4]byte
	alias     string
}

func newDirectory(ctx context.Context, client kubernetes.Interface, domain string) *directory {
	factory := informers.NewSharedInformerFactory(client, 10*time.Minute)
	d := &directory{
		suffix:   ".svc." + domain,
		services: factory.Core().V1().Services().Lister(),
		slices:   factory.Discovery().V1().EndpointSlices().Lister(),
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return d
}

// lookup resolves SERVICE.NAMESPACE.svc.DOMAIN and, of a headless service,
// HOSTNAME.SERVICE.NAMESPACE.svc.DOMAIN.
func (d *directory) lookup(name string) (record, bool) {
	rest, inside := strings.CutSuffix(name, d.suffix)
	if !inside {
		return record{}, false
	}
	parts := strings.Split(rest, ".")
	hostname := ""
	if len(parts) == 3 {
		hostname, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return record{}, false
	}
	service, err := d.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return record{}, false
	}
	return d.resolve(service, hostname)
}

func (d *directory) resolve(service *core.Service, hostname string) (record, bool) {
	headless := service.Spec.ClusterIP == core.ClusterIPNone
	switch {
	case hostname != "" && !headless:
		return record{}, false
	case service.Spec.Type == core.ServiceTypeExternalName:
		return record{alias: service.Spec.ExternalName}, true
	case !headless:
		return record{addresses: appendAddress(nil, service.Spec.ClusterIP)}, true
	}
	addresses := d.endpoints(service, hostname)
	return record{addresses: addresses}, hostname == "" || len(addresses) > 0
}

func (d *directory) endpoints(service *core.Service, hostname string) [][4]byte {
	selector := labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service.Name})
	slices, err := d.slices.EndpointSlices(service.Namespace).List(selector)
	if err != nil {
		return nil
	}
	var addresses [][4]byte
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			named := hostname == "" || (endpoint.Hostname != nil && *endpoint.Hostname == hostname)
			if !named || (!ready && !service.Spec.PublishNotReadyAddresses) {
				continue
			}
			for _, text := range endpoint.Addresses {
				addresses = appendAddress(addresses, text)
			}
		}
	}
	return addresses
}

func appendAddress(addresses [][4]byte, text string) [][4]byte {
	parsed, err := netip.ParseAddr(text)
	if err != nil || !parsed.Is4() {
		return addresses
	}
	return append(addresses, parsed.As4())
}
