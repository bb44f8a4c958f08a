package claims

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// foreign puts what another gateway writes on the topic: its claim for a body,
// and the note that its request is queued.
func (r *rig) foreign(id string, body byte) {
	r.t.Helper()
	s := stream(id)
	s.Issued = time.Now()
	s.Expires = s.Issued.Add(time.Hour)
	m := mark('k', body)
	r.put(claim{marks: []Mark{m}, stream: s, until: s.Issued.Add(window).UnixMilli(), patience: 10_000}.record())
	r.put(note{stream: id, request: Position{Partition: 1, Offset: 5, Incarnation: 7}}.record(m.Key))
}

// The first live claim in the log wins, also when who comes second had not read
// it before writing its own: the same body gets that stream, another is refused.
func TestFirstClaimInTheLogWins(t *testing.T) {
	for body, want := range map[byte]string{'a': "stream first", 'b': "reused"} {
		rigged(t, 1, func(t *testing.T, r *rig) {
			b := r.book(Config{})
			pass(5 * time.Second)
			var once sync.Once
			b.config.Produce = func(ctx context.Context, placeBy []byte, rec record.Record) (Position, error) {
				once.Do(func() { r.foreign("first", 'a') })
				return r.produce(ctx, placeBy, rec)
			}
			b.expect(t, "second", body, want)
		})
	}
}

// A topic that was made anew is read from its start, also when it has grown
// beyond what was read of the one before.
func TestTopicMadeAnewAndLonger(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "old", 'a', "turn of old").note(t, 1)
		if err := r.DeleteTopic(Topic); err != nil {
			t.Fatal(err)
		}
		r.create(2)
		r.foreign("new", 'b') // before the book looks
		for range 10 {
			r.put(note{stream: "unknown"}.record([16]byte{'x'}))
		}
		pass(30 * time.Second)
		b.expect(t, "t", 'b', "stream new")
		if live := b.Live(); live != 1 {
			t.Errorf("%d claims, want that of the new topic", live)
		}
	})
}

// A partition that fills every answer of the broker does not starve the others:
// their claims are read.
func TestBusyPartition(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		r.create(4)
		// What stands first in the request fills the answer.
		r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			for i := range q.(*kmsg.FetchRequest).Topics {
				of := &q.(*kmsg.FetchRequest).Topics[i]
				of.Partitions = of.Partitions[:1]
			}
			return nil, nil, false
		})
		b := r.book(Config{})
		pass(10 * time.Second)
		b.expect(t, "s", 'a', "turn of s")
	})
}

// What a topic held at the start is read to its end before a claim is settled,
// however many answers of the broker that takes.
func TestClaimsAreReadToTheEnd(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		r.create(1)
		for range 10 { // more than one answer holds
			r.put(record.Record{Key: []byte("k"), Value: bytes.Repeat([]byte("x"), 1_000_000)})
		}
		r.foreign("first", 'a')
		release := make(chan struct{})
		fetches := 0
		r.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			if fetches++; fetches == 2 {
				r.SleepControl(func() { <-release })
			}
			return nil, nil, false
		})
		b := r.book(Config{})
		pass(5 * time.Second)
		if live := b.Live(); live != 0 {
			t.Errorf("%d claims are live before all is read", live)
		}
		early := make(chan struct{})
		go func() {
			defer close(early)
			b.expect(t, "late", 'a', "stream first")
		}()
		pass(time.Second)
		select {
		case <-early:
			t.Error("a claim was settled before all is read")
		default:
		}
		close(release)
		<-early
	})
}
