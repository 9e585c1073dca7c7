package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	answerLifetime = 5 // seconds; short, since endpoints move
	maximumQuery   = 4096
	maximumAnswer  = 1232 // of a UDP answer; a longer one tells the client to ask by TCP
)

// runDNS answers the cluster's names until it is told to stop. It asks no other server: a name
// outside the cluster does not exist here.
func runDNS() int {
	flags := flag.NewFlagSet("dns", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "how to reach the API server")
	address := flags.String("address", "127.0.0.1:53", "address to answer on, by UDP and TCP")
	domain := flags.String("domain", "cluster.local", "the cluster's domain")
	_ = flags.Parse(os.Args[1:])

	client, err := newClient(*kubeconfig)
	if err == nil {
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer cancel()
		err = serveDNS(ctx, *address, newDirectory(ctx, client, *domain))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dns:", err)
		return 1
	}
	return 0
}

func serveDNS(ctx context.Context, address string, names *directory) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		_ = packets.Close()
		_ = streams.Close()
	}()
	go acceptStreams(streams, names)
	return ignoreClosed(answerPackets(packets, names))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func answerPackets(packets net.PacketConn, names *directory) error {
	buffer := make([]byte, maximumQuery)
	for {
		size, client, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if reply, err := answer(buffer[:size], names, maximumAnswer); err == nil {
			_, _ = packets.WriteTo(reply, client)
		}
	}
}

func acceptStreams(streams net.Listener, names *directory) {
	for {
		stream, err := streams.Accept()
		if err != nil {
			return
		}
		go func() {
			defer stream.Close()
			_ = answerStream(stream, names)
		}()
	}
}

// answerStream answers one client's queries, each preceded by its length in two bytes.
func answerStream(stream net.Conn, names *directory) error {
	for {
		if err := stream.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		var size uint16
		if err := binary.Read(stream, binary.BigEndian, &size); err != nil {
			return err
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(stream, query); err != nil {
			return err
		}
		reply, err := answer(query, names, 65535)
		if err != nil {
			return err
		}
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(reply)))
		if _, err := stream.Write(append(framed, reply...)); err != nil {
			return err
		}
	}
}

func answer(query []byte, names *directory, limit int) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	found, exists := names.lookup(strings.ToLower(strings.TrimSuffix(question.Name.String(), ".")))
	reply := dnsmessage.Header{
		ID: header.ID, Response: true, Authoritative: true,
		RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
	}
	if !exists {
		reply.RCode = dnsmessage.RCodeNameError
	}
	packed, err := pack(reply, question, found)
	if err == nil && len(packed) > limit {
		reply.Truncated = true
		return pack(reply, question, record{})
	}
	return packed, err
}

func pack(header dnsmessage.Header, question dnsmessage.Question, found record) ([]byte, error) {
	builder := dnsmessage.NewBuilder(nil, header)
	builder.EnableCompression()
	if err := builder.StartQuestions(); err != nil {
		return nil, err
	}
	if err := builder.Question(question); err != nil {
		return nil, err
	}
	if err := builder.StartAnswers(); err != nil {
		return nil, err
	}
	resource := dnsmessage.ResourceHeader{
		Name: question.Name, Class: dnsmessage.ClassINET, TTL: answerLifetime,
	}
	if found.alias != "" {
		alias, err := dnsmessage.NewName(found.alias + ".")
		if err != nil {
			return nil, err
		}
		if err := builder.CNAMEResource(resource, dnsmessage.CNAMEResource{CNAME: alias}); err != nil {
			return nil, err
		}
	}
	if question.Type == dnsmessage.TypeA || question.Type == dnsmessage.TypeALL {
		for _, address := range found.addresses {
			if err := builder.AResource(resource, dnsmessage.AResource{A: address}); err != nil {
				return nil, err
			}
		}
	}
	return builder.Finish()
}
