//go:build e2e

package main

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// balancer is a load balancer with no affinity: it gives each connection to the
// next gateway in turn, and to the one after where nobody accepts it. It knows
// nothing of HTTP, nor of gateways that accept and do not answer.
type balancer struct {
	URL string

	gateways []*gateway
	turn     atomic.Uint64
	listener net.Listener
	open     sync.WaitGroup
	ctx      context.Context
}

// newBalancer stands before gateways until the test ends.
func newBalancer(t testing.TB, gateways ...*gateway) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &balancer{URL: "http://" + l.Addr().String(), gateways: gateways, listener: l, ctx: ctx}
	b.open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			b.open.Go(func() { b.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		b.open.Wait()
	})
	return b
}

// serve passes bytes on until either side ends the connection.
func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	gateway := b.dial()
	if gateway == nil {
		return
	}
	defer gateway.Close()
	ctx, end := context.WithCancel(b.ctx)
	defer end()
	context.AfterFunc(ctx, func() {
		client.Close()
		gateway.Close()
	})
	b.open.Go(func() {
		defer end()
		_, _ = io.Copy(gateway, client)
	})
	_, _ = io.Copy(client, gateway)
}

// dial gives a connection to the gateway whose turn it is, or to another.
func (b *balancer) dial() net.Conn {
	turn := b.turn.Add(1)
	for i := range b.gateways {
		g := b.gateways[(turn+uint64(i))%uint64(len(b.gateways))]
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(g.URL, "http://"), time.Second)
		if err == nil {
			return conn
		}
	}
	return nil
}
