package ingress

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func TestProduceAnswersWithThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, Config{})
		info, err := w.client.Topic(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			key, value := fmt.Sprintf("customer-%d", i%5), fmt.Sprintf("order %d", i)
			ack := w.must(key, value)
			if want := record.Partition([]byte(key), 4); ack.Partition != want {
				t.Errorf("key %q went to partition %d, want %d", key, ack.Partition, want)
			}
			if ack.Incarnation != info.ID.Incarnation() {
				t.Errorf("incarnation %x, want %x", ack.Incarnation, info.ID.Incarnation())
			}
			found := false
			for _, s := range w.read("orders") {
				found = found || s == stored{ack.Partition, ack.Offset, key, value}
			}
			if !found {
				t.Errorf("%q is not at partition %d, offset %d", value, ack.Partition, ack.Offset)
			}
		}
	})
}
