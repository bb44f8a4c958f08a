package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// serverCertificate is a certificate for 127.0.0.1 and example.com, by itself.
func serverCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	return server.TLS.Certificates[0]
}

// otherServer is a server that does something else with each connection than Kafka would.
func otherServer(t *testing.T, security *tls.Config, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if security != nil {
		listener = tls.NewListener(listener, security)
	}
	var serving sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		stop()
		listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				defer conn.Close()
				serve(conn)
			})
		}
	})
	return listener.Addr().String()
}

// What listens at the address is told to the operator in words that say what to
// do, for the client's own connections and those of its groups.
func TestOtherServers(t *testing.T) {
	certificate := serverCertificate(t)
	leaf, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(leaf)
	trust := func(name string) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trusted, ServerName: name}
	}
	server := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
	demanding := server.Clone()
	demanding.ClientAuth = tls.RequireAnyClientCert

	waits := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	answers := func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
	}
	hangsUp := func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) }

	for name, c := range map[string]struct {
		server, client *tls.Config
		serve          func(net.Conn)
		want           error
		text           string
	}{
		"http":                       {serve: answers, want: ErrNotKafka, text: "check address and tls"},
		"http over tls":              {server: server, client: trust(""), serve: answers, want: ErrNotKafka, text: "HTTP"},
		"http that waits":            {serve: waits, want: ErrNoHandshake, text: "does not answer Kafka's handshake"},
		"http over tls that waits":   {server: server, client: trust(""), serve: waits, want: ErrNoHandshake, text: "does not answer Kafka's handshake"},
		"hangs up":                   {serve: hangsUp, text: "ended the connection instead of answering"},
		"tls, dialed without":        {server: server, serve: waits, text: "check address and tls"},
		"no tls, dialed with":        {client: trust(""), serve: answers, text: "leave tls out"},
		"tls wanted, and it waits":   {client: trust(""), serve: waits, text: "check that it speaks TLS"},
		"unknown authority":          {server: server, client: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}, serve: waits, text: "tls { ca <file> }"},
		"another name":               {server: server, client: trust("kafka.example"), serve: waits, text: "server_name"},
		"client certificate missing": {server: demanding, client: trust(""), serve: waits, text: "tls { cert <file> <key> }"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := New(Config{Addresses: []string{otherServer(t, c.server, c.serve)}, TLS: c.client})
			defer client.Close()
			check := func(who string, err error) {
				t.Helper()
				if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: got %v, want %q in it, and %v", who, err, c.text, c.want)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := client.Topic(ctx, "orders")
			check("client", err)
			if !errors.Is(err, ErrNotSent) {
				t.Errorf("client: got %v, want %v", err, ErrNotSent)
			}
		})
	}
}
