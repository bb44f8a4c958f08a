//go:build e2e

package autoscale

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// awaitHeld waits until a lease is held, or is not.
func awaitHeld(t *testing.T, l *GroupLease, want bool) int32 {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		changed := l.Changed()
		since, held := l.Held()
		if held == want {
			return since
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("held is %v still", held)
		}
	}
}

// severable is a network that can be taken down.
type severable struct {
	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func (s *severable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		_ = conn.Close()
		return nil, errors.New("the network is down")
	}
	s.conns = append(s.conns, conn)
	return conn, nil
}

func (s *severable) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for _, conn := range s.conns {
		_ = conn.Close()
	}
}

// A lease on a real Kafka: kept when others come, handed over, taken over from
// one that is cut off, and back after the broker was.
func TestLeaseOnRealKafka(t *testing.T) {
	t.Parallel()
	kafka := kafkatest.Start(t, kafkatest.Options{})
	lease := func(client *broker.Client) *GroupLease {
		l := NewLease(LeaseConfig{Broker: client, Topic: "orders", Group: "workers", Create: true})
		t.Cleanup(l.Close)
		return l
	}
	connect := func(dial func(context.Context, string, string) (net.Conn, error)) *broker.Client {
		client := broker.New(broker.Config{Addresses: kafka.Addresses(), Dial: dial})
		t.Cleanup(client.Close)
		return client
	}
	client := connect(nil)
	one := lease(client)
	first := awaitHeld(t, one, true)

	var network severable
	two := lease(connect(network.dial))
	for !two.Elsewhere() {
		<-two.Changed()
	}
	if since, held := one.Held(); !held || since != first {
		t.Fatalf("held %v since %d after another has come", held, since)
	}

	begun := time.Now()
	one.Close()
	second := awaitHeld(t, two, true)
	t.Logf("handed over in %s", time.Since(begun).Round(10*time.Millisecond))
	if second <= first {
		t.Fatalf("generation %d after %d", second, first)
	}

	three := lease(client)
	for !three.Elsewhere() {
		<-three.Changed()
	}
	begun = time.Now()
	network.cut()
	var watching sync.WaitGroup
	watching.Go(func() {
		awaitHeld(t, two, false)
		t.Logf("given up by the clock after %s", time.Since(begun).Round(10*time.Millisecond))
	})
	third := awaitHeld(t, three, true)
	t.Logf("taken over in %s", time.Since(begun).Round(10*time.Millisecond))
	watching.Wait()
	if third <= second {
		t.Fatalf("generation %d after %d", third, second)
	}

	kafka.Kill()
	awaitHeld(t, three, false)
	if three.Elsewhere() {
		t.Fatal("an outage was taken for another holder")
	}
	kafka.Restart()
	begun = time.Now()
	// The broker remembers the group, so it may be the same generation still.
	if last := awaitHeld(t, three, true); last < third {
		t.Fatalf("generation %d after %d", last, third)
	}
	t.Logf("held again %s after the restart", time.Since(begun).Round(10*time.Millisecond))
}
