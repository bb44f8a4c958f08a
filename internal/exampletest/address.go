package exampletest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
)

// FreeAddress gives a loopback address that nobody listens on just now, and that
// this process has not given before: what is told of it may not listen yet, or be
// down for a moment. Its port is from below those that systems serve outgoing
// connections from: a gateway that is down would lose such a one to a client.
func FreeAddress(t testing.TB) string {
	t.Helper()
	const first, ports = 10_000, 10_000
	for range 100 {
		port := strconv.Itoa(first + int(addresses.Add(1)%ports))
		l, err := net.Listen("tcp", ":"+port) // as Caddy's sites do
		if err == nil {
			l.Close()
			return net.JoinHostPort("127.0.0.1", port)
		}
	}
	t.Fatal("no free port")
	return ""
}

// addresses counts those given, from where other processes hardly begin.
var addresses atomic.Uint32

func init() { addresses.Store(rand.Uint32N(1 << 31)) }

// named gives such an address under the name that the examples use.
func named(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return net.JoinHostPort("localhost", port)
}
