package osmosis

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A reply goes to the partition on which it is awaited. Where there is no such
// partition it goes by its key, so that the group's records do not wait for it
// for ever.
func TestRepliesGoWhereTheyAreAwaited(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka(kfake.SeedTopics(4, "replies"))
	client := broker.New(broker.Config{Addresses: cluster.ListenAddrs()})
	defer client.Close()
	producer := ingress.New(ingress.Config{Broker: client})
	defer producer.Close()
	r := replies{producer, func(context.Context, string, record.Record) error { return nil }}
	key := []byte("stream")
	byKey := record.Partition(key, 4)
	for named, want := range map[int32]int32{(byKey + 1) % 4: (byKey + 1) % 4, (byKey + 2) % 4: (byKey + 2) % 4, 9: byKey, -1: byKey} {
		before := cluster.PartitionInfo("replies", want).HighWatermark
		if err := r.Produce(t.Context(), "replies", named, record.Record{Key: key}); err != nil {
			t.Errorf("for partition %d: %v", named, err)
		}
		if after := cluster.PartitionInfo("replies", want).HighWatermark; after != before+1 {
			t.Errorf("a reply for partition %d did not go to %d", named, want)
		}
	}
}
