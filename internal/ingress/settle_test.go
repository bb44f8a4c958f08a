package ingress

import (
	"testing"
	"testing/synctest"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// After an answer that was lost, a refusal that may pass settles nothing: the same
// bytes go to the same partition again until the broker knows them.
func TestRefusedForNowAfterALostAnswer(t *testing.T) {
	for _, code := range []kafka.Error{
		kafka.NotEnoughReplicas, kafka.ThrottlingQuotaExceeded, kafka.UnknownTopicOrPartition, broker.ErrUnknownTopicID, kafka.NotLeaderForPartition,
	} {
		t.Run(code.Title(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2, Config{})
				w.must("k", "before")
				w.link.once(loseAnswer)
				w.onProduce(func(n int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
					if n == 2 {
						return answer(r, code), nil, true
					}
					return nil, nil, false
				})
				ack := w.must("k", "order")
				if got := w.values(); len(got) != 2 {
					t.Errorf("the topic holds %q, want two records", got)
				}
				for _, s := range w.read("orders") {
					if s.value == "order" && (s.partition != ack.Partition || s.offset != ack.Offset) {
						t.Errorf("told %+v, is at %+v", ack, s)
					}
				}
			})
		})
	}
}

// Every record is produced with acks=all: a leader alone may lose what it took.
func TestAllReplicasAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		requests := 0
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			requests++
			if r.Acks != -1 {
				t.Errorf("acks=%d, want -1", r.Acks)
			}
			return nil, nil, false
		})
		w.must("k", "keyed")
		w.must("", "keyless")
		if requests != 2 {
			t.Errorf("%d requests", requests)
		}
	})
}
