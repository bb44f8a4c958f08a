//go:build e2e && unix

package main

import (
	"syscall"
	"testing"
	"time"
)

// TestAGatewayIsFrozenAndKilledOnRealKafka stops one of two gateways by SIGSTOP
// for longer than any session lasts, and then kills it. Its clients notice by
// the heartbeats that they miss; the balancer goes on to send it every second
// connection.
func TestAGatewayIsFrozenAndKilledOnRealKafka(t *testing.T) {
	t.Parallel()
	frozenUnderLoad(t, 40*time.Second, "killed", (*gateway).kill)
}

// TestAGatewayIsFrozenAndThawedOnRealKafka lets the gateway go on after its
// session has ended: it finds requests that their clients have given up, and
// home partitions that are another's by now.
func TestAGatewayIsFrozenAndThawedOnRealKafka(t *testing.T) {
	t.Parallel()
	frozenUnderLoad(t, 20*time.Second, "thawed", func(g *gateway) { g.signal(syscall.SIGCONT) })
}

func frozenUnderLoad(t *testing.T, frozen time.Duration, then string, end func(*gateway)) {
	t.Helper()
	gateways, b, brokers := several(t, 2)
	const total = 1_000
	c := &crowd{URL: b.URL, senders: 32, every: 500 * time.Millisecond, fresh: true, silence: 4 * time.Second}
	c.more = func() bool { return c.got202.Load() < total }
	c.start(t)
	// A stream lasts for up to 20 s.
	crew(t, brokers, func(n int) []time.Duration {
		pause := time.Duration(n%20) * 500 * time.Millisecond
		return []time.Duration{0, pause, pause}
	})
	c.await(t, "streams before the freeze", &c.got202, total/5)
	open := c.got202.Load() - c.ended.Load()
	gateways[0].signal(syscall.SIGSTOP)
	<-time.After(frozen)
	meanwhile := c.got202.Load()
	end(gateways[0])
	c.finish(t)
	found := c.check(t, brokers)
	if found.accepted < total || found.resumed == 0 {
		t.Errorf("%d streams, %d resumed connections", found.accepted, found.resumed)
	}
	t.Logf("one of two gateways frozen for %s with %d streams open, and %s when there had been %d: %s", frozen, open, then, meanwhile, found)
}

// signal sends the process a signal.
func (g *gateway) signal(signal syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(signal); err != nil {
		g.t.Fatal(err)
	}
}
