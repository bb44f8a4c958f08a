package osmosis

import (
	"bytes"
	"encoding/binary"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Each route has its own keys: the same request with the same Idempotency-Key is
// queued on each, and each repeats its own.
func TestIdempotencyKeyOfAnotherRoute(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		first := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		one, two := s.route, &Handler{Topic: "deliveries"}
		two.settle(s.app)
		s.app.addRoute(two)
		s.route = two
		second := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		if again := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true); again.ID != second.ID || second.ID == first.ID {
			t.Errorf("streams %s, %s, and %s again", first.ID, second.ID, again.ID)
		}
		s.route = one
		if again := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true); again.ID != first.ID {
			t.Errorf("stream %s, want %s", again.ID, first.ID)
		}
	})
}

// A key's claims and notes lie in one partition, which follows from who asks and
// from the key, and from no secret: gateways whose secrets are being replaced find
// each other's.
func TestClaimsArePlacedByTheKey(t *testing.T) {
	keyed(t, &Handler{Bind: "{test.user}"}, func(t *testing.T, s *storefront) {
		want := make(map[int32]int)
		for i := range 12 {
			key := strconv.Itoa(i)
			s.send(s.post("tea", "Idempotency-Key", key, "User", "ada")).want202(t, false)
			who := digest(testTopic, "bound", "ada", key)
			want[record.Partition(who[:], claimPartitions)] += 2 // the claim and its note
		}
		got := make(map[int32]int)
		for _, r := range s.stored(claims.Topic) {
			got[r.partition]++
		}
		if !maps.Equal(got, want) || len(got) < 3 {
			t.Errorf("records by partition: %v, want %v", got, want)
		}
	})
}

// A request with an Idempotency-Key and without a key is placed by its stream id,
// so that one that is queued again comes to the same worker.
func TestRequestWithIdempotencyKeyIsPlacedByItsStream(t *testing.T) {
	const partitions = 6
	keyed(t, &Handler{Topic: "many"}, func(t *testing.T, s *storefront) {
		want := make(map[string]int32)
		for i := range 12 {
			q := s.send(s.post("tea", "Idempotency-Key", strconv.Itoa(i))).want202(t, false)
			want[q.ID] = record.Partition([]byte(q.ID), partitions)
		}
		for _, r := range s.stored("many") {
			if id, _ := record.CorrelationID(r.Headers); r.partition != want[id] {
				t.Errorf("stream %s lies in partition %d, want %d", id, r.partition, want[id])
			}
		}
	}, func(a *App) { a.Create = &Create{Partitions: partitions} })
}

// A repeat gets the floor of the request that was queued: with a newer one it would
// wait behind an answer that has come, with an older one be told of a gap.
func TestRepeatHasTheFloorOfTheFirst(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		floor := func(replayed bool) int64 {
			t.Helper()
			a := s.send(s.post("tea", "Idempotency-Key", "k"))
			a.want202(t, replayed)
			c, err := s.app.keys.Open(strings.TrimPrefix(a.Header.Get("Location"), defaultStreams+"/"))
			if err != nil {
				t.Fatal(err)
			}
			return c.Floor
		}
		others := func() {
			for range 3 {
				s.put(record.Reply{StreamID: "another"}.Record())
			}
			pass(time.Minute) // the hub has seen them
		}
		others()
		if first := floor(false); first != 3 {
			t.Errorf("floor %d, want 3", first)
		}
		others()
		if again := floor(true); again != 3 {
			t.Errorf("floor of the repeat %d, want 3", again)
		}
	})
}

// A request that may have been queued keeps its claim: the repeat is produced with
// the same stream id, by which whoever works on both tells that they are one.
func TestRepeatOfAnUnclearRequestHasItsStream(t *testing.T) {
	keyed(t, &Handler{}, func(t *testing.T, s *storefront) {
		var id string
		stop := s.onRequests(func(q *kmsg.ProduceRequest) (kmsg.Response, bool) {
			_, rest, _ := bytes.Cut(q.Topics[0].Partitions[0].Records, []byte(record.HeaderCorrelationID))
			if size, n := binary.Varint(rest); n > 0 && size > 0 && int(size) < len(rest)-n {
				id = string(rest[n : n+int(size)])
			}
			return refusing(kafka.RequestTimedOut)(q)
		})
		s.send(s.post("tea", "Idempotency-Key", "k")).want(t, 503, "may have been queued")
		stop()
		if again := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false); again.ID != id {
			t.Errorf("stream %s, want %s", again.ID, id)
		}
	})
}
