package autoscale

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// commit moves a group, as one of its members would.
func commit(t *testing.T, api *kafka.Client, offset int64) {
	t.Helper()
	answer, err := api.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
		GroupID: "workers", GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{"orders": {{Partition: 1, Offset: offset}}},
	})
	if err != nil || answer.Topics["orders"][0].Error != nil {
		t.Fatal(answer, err)
	}
}

func TestPositionFollowsTheGroupsCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.SeedTopics(2, "orders"), kfake.ListenFn(network.Listen))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		transport := &kafka.Transport{Dial: network.DialContext}
		defer transport.CloseIdleConnections()
		api := &kafka.Client{Addr: kafka.TCP(cluster.ListenAddrs()...), Transport: transport, Timeout: 5 * time.Second}
		meter := NewMeter(api, nil)
		position := func() (Position, bool) {
			t.Helper()
			p, ok, err := meter.Position(t.Context(), "orders", "workers", 1, 100)
			if err != nil {
				t.Fatal(err)
			}
			return p, ok
		}

		if p, ok := position(); ok {
			t.Fatalf("a group without a commit stands at %+v", p)
		}
		commit(t, api, 40)
		time.Sleep(freshFor)
		if p, ok := position(); !ok || p.Ahead != 60 || p.ETA != -1 {
			t.Fatalf("got %+v %t", p, ok)
		}
		commit(t, api, 60)
		if p, _ := position(); p.Ahead != 60 {
			t.Fatalf("asked again within a second: %+v", p)
		}
		time.Sleep(10 * time.Second)
		if p, _ := position(); p.Ahead != 40 || p.ETA != 20500*time.Millisecond { // 20 in 10 s, 41 to go
			t.Fatalf("got %+v", p)
		}
		commit(t, api, 101)
		time.Sleep(freshFor)
		if p, ok := position(); !ok || p.Ahead != -1 || p.ETA != 0 {
			t.Fatalf("got %+v %t for a record that is done", p, ok)
		}
		// What lies more than a minute back says nothing of the pace now.
		time.Sleep(3 * rateOver)
		position()
		time.Sleep(rateOver)
		if p, ok, err := meter.Position(t.Context(), "orders", "workers", 1, 200); err != nil || !ok || p.ETA != -1 {
			t.Fatalf("got %+v %t %v", p, ok, err)
		}
	})
}

func TestAMeterWithoutABrokerSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		transport := &kafka.Transport{Dial: network.DialContext}
		defer transport.CloseIdleConnections()
		meter := NewMeter(&kafka.Client{Addr: kafka.TCP("127.0.0.1:9092"), Transport: transport, Timeout: time.Second}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if p, ok, err := meter.Position(ctx, "orders", "workers", 1, 100); err == nil {
			t.Fatalf("got %+v %t", p, ok)
		}
	})
}

// What a commit says is done out of order is neither ahead of a record nor waits
// itself, and it counts for the pace.
func TestPositionLeavesOutWhatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.SeedTopics(2, "orders"), kfake.ListenFn(network.Listen))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		transport := &kafka.Transport{Dial: network.DialContext}
		defer transport.CloseIdleConnections()
		api := &kafka.Client{Addr: kafka.TCP(cluster.ListenAddrs()...), Transport: transport, Timeout: 5 * time.Second}
		first := int64(50) // from here to 80 all are done
		meter := NewMeter(api, func(committed int64, _ string, below int64) int64 {
			return max(0, min(below, 80)-max(committed, first))
		})
		position := func(offset int64) Position {
			t.Helper()
			p, ok, err := meter.Position(t.Context(), "orders", "workers", 1, offset)
			if err != nil || !ok {
				t.Fatal(p, ok, err)
			}
			return p
		}
		commit(t, api, 40)
		if p := position(100); p.Ahead != 30 {
			t.Errorf("%+v, want 10 before what is done and 20 after it", p)
		}
		if p := position(50); p.Ahead != -1 || p.ETA != 0 {
			t.Errorf("%+v of a record that is done", p)
		}
		if p := position(49); p.Ahead != 9 {
			t.Errorf("%+v of the record before what is done", p)
		}
		// The commit stands, and 5 more are done in ten seconds.
		time.Sleep(10 * time.Second)
		first = 45
		if p := position(100); p.Ahead != 25 || p.ETA != 52*time.Second {
			t.Errorf("%+v, want 26 records at one in 2 s", p)
		}
	})
}
