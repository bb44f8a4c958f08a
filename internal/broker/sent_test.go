package broker

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// broken is a connection that breaks after so many bytes of a produce request.
type broken struct {
	net.Conn
	after   int
	written *atomic.Int64 // bytes of produce requests that went out
}

func (b *broken) Write(p []byte) (int, error) {
	if len(p) < 6 || p[4] != 0 || p[5] != byte(kmsg.Produce) {
		return b.Conn.Write(p)
	}
	n, err := b.Conn.Write(p[:min(b.after, len(p))])
	b.written.Add(int64(n))
	if err == nil && n < len(p) {
		err = &net.OpError{Op: "write", Err: errors.New("broken pipe")}
		b.Conn.Close()
	}
	return n, err
}

// A produce call says that nothing was sent only where that is so.
func TestNotSent(t *testing.T) {
	for name, c := range map[string]struct {
		after   int
		notSent bool
	}{
		"first write fails": {0, true},
		"one byte went out": {1, false},
		"half went out":     {40, false},
	} {
		bubble(t, name, func(t *testing.T) {
			w := newWorld(t)
			topic := w.make("orders", 1, nil)
			var written atomic.Int64
			client := New(Config{Addresses: w.ListenAddrs(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := w.dial(ctx, network, address)
				return &broken{conn, c.after, &written}, err
			}})
			defer client.Close()
			_, err := client.Produce(t.Context(), one, topic, []Batch{{0, plain("a")}})
			if err == nil || errors.Is(err, ErrNotSent) != c.notSent {
				t.Errorf("got %v, want ErrNotSent: %v", err, c.notSent)
			}
			if (written.Load() == 0) != c.notSent {
				t.Errorf("%d bytes went out", written.Load())
			}
		})
	}

	bubble(t, "no answer", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		w.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			return nil, errors.New("gone"), true
		})
		if _, err := w.Produce(t.Context(), one, topic, []Batch{{0, plain("a")}}); err == nil || errors.Is(err, ErrNotSent) {
			t.Errorf("got %v", err)
		}
	})

	bubble(t, "a broker that nobody knows", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		if _, err := w.Produce(t.Context(), 9, topic, []Batch{{0, plain("a")}}); !errors.Is(err, ErrNotSent) || !errors.Is(err, kafka.BrokerNotAvailable) {
			t.Errorf("got %v", err)
		}
	})

	bubble(t, "nobody to dial", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		w.cut(true)
		if _, err := w.Produce(t.Context(), one, topic, []Batch{{0, plain("a")}}); !errors.Is(err, ErrNotSent) {
			t.Errorf("got %v", err)
		}
	})

	bubble(t, "dialing takes longer than there is time", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		if _, err := w.version(t.Context(), one, int16(kmsg.Produce), span{3, 13}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second) // the connections rest, and end
		w.cut(false)
		open := make(chan struct{})
		w.mu.Lock()
		w.slow = open
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Produce(ctx, one, topic, []Batch{{0, plain("late")}}); !errors.Is(err, ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(open)
		pass(time.Minute)
		wantValues(t, w.fetch(topic, 0, 0), 0)
	})
}

// The race between the writer and the caller who leaves has one winner.
func TestSending(t *testing.T) {
	for range 1000 {
		var s sending
		var begun atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			begun.Store(s.begin())
		}()
		abandoned := s.abandon()
		<-done
		if begun.Load() == abandoned {
			t.Fatalf("begun %v and abandoned %v", begun.Load(), abandoned)
		}
	}
	var s sending
	if !s.abandon() || s.begin() {
		t.Fatal("an abandoned request was begun")
	}
}

// Connections that a broker has ended while they were idle cost a request
// nothing, however many there are.
func TestDeadIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		held := make(chan error, 10)
		for range cap(held) {
			go func() {
				_, err := w.Fetch(t.Context(), FetchRequest{Leader: one, MaxWait: time.Second, MaxBytes: 1 << 20, From: []FetchFrom{{Topic: "orders", ID: topic.ID}}})
				held <- err
			}()
		}
		for range cap(held) {
			if err := <-held; err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		w.cut(false)
		got, err := w.Produce(t.Context(), one, topic, []Batch{{0, plain("a")}})
		if err != nil || got[0].Err != nil || got[0].BaseOffset != 0 {
			t.Fatal(got, err)
		}
	})
}
