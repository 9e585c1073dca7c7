package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const certificateLifetime = 365 * 24 * time.Hour

// identity is who a certificate speaks for: a server's names, or a client's user and group.
type identity struct {
	file      string // its files are FILE.crt and FILE.key
	user      string
	group     string
	names     []string
	addresses []net.IP
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	directory   string
}

// runCertificates writes the keys and certificates of a new cluster into one folder.
func runCertificates() int {
	flags := flag.NewFlagSet("pki", flag.ExitOnError)
	directory := flags.String("directory", "", "folder to write into")
	node := flags.String("node", "", "name of the node")
	addresses := flags.String("addresses", "", "addresses the servers answer on, by commas")
	_ = flags.Parse(os.Args[1:])

	if err := writeCertificates(*directory, *node, *addresses); err != nil {
		fmt.Fprintln(os.Stderr, "pki:", err)
		return 1
	}
	return 0
}

func writeCertificates(directory, node, addresses string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	cluster, err := newAuthority(directory, "ca")
	if err != nil {
		return err
	}
	for _, each := range clusterIdentities(node, parseAddresses(addresses)) {
		if err := cluster.issue(each); err != nil {
			return err
		}
	}
	// The aggregation layer's own authority: a client of the cluster must not be able to pass
	// for the API server's proxy.
	frontProxy, err := newAuthority(directory, "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := frontProxy.issue(identity{file: "front-proxy-client", user: "front-proxy-client"}); err != nil {
		return err
	}
	return writeServiceAccountKey(directory)
}

func clusterIdentities(node string, addresses []net.IP) []identity {
	serverNames := []string{
		"localhost", node, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local",
	}
	return []identity{
		{file: "apiserver", user: "kube-apiserver", names: serverNames, addresses: addresses},
		{file: "apiserver-kubelet-client", user: "kube-apiserver-kubelet-client", group: "system:masters"},
		{file: "admin", user: "devcluster:admin", group: "system:masters"},
		{file: "controller-manager", user: "system:kube-controller-manager"},
		{file: "scheduler", user: "system:kube-scheduler"},
		{file: "proxy", user: "system:kube-proxy"},
		{file: "kubelet", user: "system:node:" + node, group: "system:nodes"},
		{file: "kubelet-server", user: "system:node:" + node, group: "system:nodes",
			names: []string{node}, addresses: addresses},
	}
}

func parseAddresses(list string) []net.IP {
	var addresses []net.IP
	for _, text := range strings.Split(list, ",") {
		if address := net.ParseIP(text); address != nil {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

func newAuthority(directory, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := certificateTemplate(name, "")
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(encoded)
	if err != nil {
		return nil, err
	}
	return &authority{parsed, key, directory}, writePair(directory, name, encoded, key)
}

func (a *authority) issue(subject identity) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := certificateTemplate(subject.user, subject.group)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(subject.names) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames, template.IPAddresses = subject.names, subject.addresses
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return err
	}
	return writePair(a.directory, subject.file, encoded, key)
}

func certificateTemplate(user, group string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour), // clocks of a restored machine may lag
		NotAfter:     time.Now().Add(certificateLifetime),
	}, nil
}

// writeServiceAccountKey writes the key that signs service accounts' tokens, and its public half.
func writeServiceAccountKey(directory string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(directory, "service-account.key"), "EC PRIVATE KEY", private); err != nil {
		return err
	}
	return writePEM(filepath.Join(directory, "service-account.pub"), "PUBLIC KEY", public)
}

func writePair(directory, name string, certificate []byte, key *ecdsa.PrivateKey) error {
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(directory, name+".crt"), "CERTIFICATE", certificate); err != nil {
		return err
	}
	return writePEM(filepath.Join(directory, name+".key"), "EC PRIVATE KEY", encoded)
}

func writePEM(path, kind string, content []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600)
}
