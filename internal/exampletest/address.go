package exampletest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// FreeAddress gives a loopback address that nobody listens on just now.
// Its port is from below those that systems serve outgoing connections from: a
// gateway that is down for a moment would lose such a one to a client.
func FreeAddress(t testing.TB) string {
	t.Helper()
	const first, ports = 10_000, 10_000
	for range 100 {
		port := strconv.Itoa(first + rand.IntN(ports))
		l, err := net.Listen("tcp", ":"+port) // as Caddy's sites do
		if err == nil {
			l.Close()
			return net.JoinHostPort("127.0.0.1", port)
		}
	}
	t.Fatal("no free port")
	return ""
}

// named gives such an address under the name that the examples use.
func named(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return net.JoinHostPort("localhost", port)
}
