package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

func TestOutage(t *testing.T) {
	bubble(t, "is an error within the deadline, and over when it is over", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		calls := map[string]func(context.Context) error{
			"topic": func(ctx context.Context) error { _, err := w.Topic(ctx, "orders"); return err },
			"ensure": func(ctx context.Context) error {
				_, err := w.Ensure(ctx, TopicSpec{Name: "orders", Partitions: 1})
				return err
			},
			"setting": func(ctx context.Context) error { _, err := w.Setting(ctx, "orders", "retention.ms"); return err },
			"offsets": func(ctx context.Context) error {
				_, err := w.Offsets(ctx, topic, []int32{0}, HighWatermark)
				return err
			},
			"fetch": func(ctx context.Context) error {
				_, err := w.Fetch(ctx, FetchRequest{Leader: one, MaxWait: time.Second, MaxBytes: 1 << 20, From: []FetchFrom{{Topic: "orders", ID: topic.ID}}})
				return err
			},
			"produce": func(ctx context.Context) error {
				_, err := w.Produce(ctx, one, topic, []Batch{{0, plain("a")}})
				return err
			},
		}
		for _, down := range []bool{false, true, false, true, false} {
			w.cut(down)
			pass(2 * metadataTTL)
			for name, call := range calls {
				begun := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				err := call(ctx)
				cancel()
				if (err != nil) != down {
					t.Fatalf("%s with the network down %v: %v", name, down, err)
				}
				if took := time.Since(begun); took > 5*time.Second {
					t.Fatalf("%s took %v", name, took)
				}
			}
		}
	})

	bubble(t, "at the start is an error, and the client comes by itself", func(t *testing.T) {
		w := newWorld(t)
		w.cut(true)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := w.Topic(ctx, "orders"); err == nil {
			t.Fatal("no error")
		}
		w.cut(false)
		w.make("orders", 1, nil)
	})

	bubble(t, "of a connection in the middle of a request ends the request", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		failed := make(chan error, 1)
		go func() {
			_, err := w.Fetch(t.Context(), FetchRequest{Leader: one, MaxWait: time.Minute, MaxBytes: 1 << 20, From: []FetchFrom{{Topic: "orders", ID: topic.ID}}})
			failed <- err
		}()
		pass(time.Second)
		begun := time.Now()
		w.cut(false)
		if err := <-failed; err == nil || time.Since(begun) > time.Second {
			t.Fatalf("%v after %v", err, time.Since(begun))
		}
		// Idle connections were cut as well, and each is found out by a request.
		again := FetchRequest{Leader: one, MaxWait: time.Millisecond, MaxBytes: 1 << 20, From: []FetchFrom{{Topic: "orders", ID: topic.ID}}}
		for try := 1; ; try++ {
			_, err := w.Fetch(t.Context(), again)
			if err == nil {
				break
			}
			if try == 10 {
				t.Fatal(err)
			}
		}
	})

	bubble(t, "that is silence ends without a deadline of the caller's", func(t *testing.T) {
		w := newWorld(t)
		w.make("orders", 1, nil)
		w.ControlKey(int16(kmsg.Metadata), func(q kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			return nil, nil, q.GetVersion() == 12
		})
		begun := time.Now()
		if _, err := w.Topic(t.Context(), "orders"); err == nil || time.Since(begun) != requestTimeout {
			t.Fatalf("%v after %v", err, time.Since(begun))
		}
	})
}

// A cancelled request leaves its connection to the answer that may come, and
// says nothing of the broker.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		w.fetch(topic, 0, 0)
		asked := w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ApiVersions}, Count: -1, Observe: true, TopLevel: true})
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			time.AfterFunc(time.Second, cancel)
			begun := time.Now()
			_, err := w.Fetch(ctx, FetchRequest{Leader: one, MaxWait: time.Minute, MaxBytes: 1 << 20, From: []FetchFrom{{Topic: "orders", ID: topic.ID}}})
			if !errors.Is(err, context.Canceled) || time.Since(begun) != time.Second {
				t.Fatalf("%v after %v", err, time.Since(begun))
			}
		}
		before := asked.Hits()
		if _, err := w.Offsets(t.Context(), topic, []int32{0}, HighWatermark); err != nil {
			t.Fatal(err)
		}
		// The Transport asks once for each connection that it opens; the client
		// does not ask again.
		if n := asked.Hits() - before; n > 1 {
			t.Fatalf("asked for versions %d times after a cancelled fetch", n)
		}
	})
}

func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		versions *kversion.Versions
		ids      bool
	}{
		"0.11": {kversion.V0_11_0(), false}, "1.0": {kversion.V1_0_0(), false}, "2.7": {kversion.V2_7_0(), false},
		"2.8": {kversion.V2_8_0(), true}, "3.0": {kversion.V3_0_0(), true}, "3.9": {kversion.V3_9_0(), true},
		"4.0": {kversion.V4_0_0(), true}, "newest": {nil, true},
	} {
		bubble(t, "Kafka "+name, func(t *testing.T) {
			var options []kfake.Opt
			if c.versions != nil {
				options = append(options, kfake.MaxVersions(c.versions))
			}
			w := newWorld(t, options...)
			topic := w.make("orders", 2, nil)
			if (topic.ID != TopicID{}) != c.ids || topic.Partitions() != 2 {
				t.Fatalf("%+v", topic)
			}
			got, err := w.Produce(t.Context(), one, topic, []Batch{{0, plain("a", "b")}, {1, plain("c")}})
			if err != nil || len(got) != 2 || got[0].Err != nil || got[1].Err != nil {
				t.Fatal(got, err)
			}
			wantValues(t, w.fetch(topic, 0, 0), 2, "a", "b")
			wantValues(t, w.fetch(topic, 1, 0), 1, "c")
			at, err := w.Offsets(t.Context(), topic, []int32{0, 1}, HighWatermark)
			if err != nil {
				t.Fatal(err)
			}
			wantOffsets(t, at, map[int32]int64{0: 2, 1: 1})
			_, err = w.Topic(t.Context(), "nothing")
			wantError(t, err, kafka.UnknownTopicOrPartition)
		})
	}

	// What a broker offers, against a client that speaks 4 to 13.
	for name, c := range map[string]struct {
		offered []span // of Fetch, at most one
		code    int16
		want    int16
		err     error
	}{
		"the same":        {[]span{{4, 13}}, 0, 13, nil},
		"newer":           {[]span{{4, 18}}, 0, 13, nil},
		"older":           {[]span{{0, 11}}, 0, 11, nil},
		"just old enough": {[]span{{0, 4}}, 0, 4, nil},
		"too old":         {[]span{{0, 3}}, 0, 0, ErrVersion},
		"too new":         {[]span{{14, 18}}, 0, 0, ErrVersion},
		"not at all":      {nil, 0, 0, ErrVersion},
		"a refusal":       {nil, kerr.UnsupportedVersion.Code, 0, kafka.UnsupportedVersion},
	} {
		bubble(t, "offered: "+name, func(t *testing.T) {
			w := newWorld(t)
			w.make("orders", 1, nil)
			w.ControlKey(int16(kmsg.ApiVersions), func(q kmsg.Request) (kmsg.Response, error, bool) {
				w.KeepControl()
				answer := q.ResponseKind().(*kmsg.ApiVersionsResponse)
				answer.ErrorCode = c.code
				for _, s := range c.offered {
					answer.ApiKeys = append(answer.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: int16(kmsg.Fetch), MinVersion: s.least, MaxVersion: s.most})
				}
				return answer, nil, true
			})
			// On the connection that is open, so that the Transport is not asking.
			w.forget(anyBroker)
			got, err := w.version(t.Context(), anyBroker, int16(kmsg.Fetch), span{4, 13})
			if got != c.want || !errors.Is(err, c.err) {
				t.Fatalf("version %d, error %v, want %d and %v", got, err, c.want, c.err)
			}
		})
	}

	bubble(t, "are asked for again after a failure", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		w.fetch(topic, 0, 0)
		if len(w.versions) != 2 {
			t.Fatalf("versions of %d brokers, want of one and of any", len(w.versions))
		}
		w.cut(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Offsets(ctx, topic, []int32{0}, HighWatermark); err == nil {
			t.Fatal("no error")
		}
		if len(w.versions) != 0 {
			t.Fatal("the versions of a broker that failed are still believed")
		}
	})
}

// A server that is no broker, or a broker that lost its mind, makes no call
// hang and none succeed.
func TestGarbage(t *testing.T) {
	for name, answer := range map[string]string{
		"http":           "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
		"tls alert":      "\x15\x03\x01\x00\x02\x02\x0a",
		"silence":        "",
		"huge":           "\x7f\xff\xff\xff",
		"another answer": "\x00\x00\x00\x0a\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00",
	} {
		bubble(t, name, func(t *testing.T) {
			client := New(Config{Addresses: []string{"kafka:9092"}, Dial: func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				go func() { // ends with its connection, and the bubble waits for it
					defer far.Close()
					_, _ = far.Read(make([]byte, 4096))
					_, _ = io.WriteString(far, answer)
					_, _ = io.Copy(io.Discard, far)
				}()
				return near, nil
			}})
			defer pass(time.Minute) // in which connections that are being made time out
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			defer cancel()
			begun := time.Now()
			got, err := client.Topic(ctx, "orders")
			if err == nil || time.Since(begun) > 7*time.Second {
				t.Fatalf("%v, %v after %v", got, err, time.Since(begun))
			}
			if told := errors.Is(err, ErrNotKafka); told != (name == "http" || name == "tls alert" || name == "huge") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestClient(t *testing.T) {
	bubble(t, "dials nothing before it is asked something", func(t *testing.T) {
		client := New(Config{Addresses: []string{"a:1", "b:2"}, Dial: func(context.Context, string, string) (net.Conn, error) {
			t.Error("dialed")
			return nil, errors.New("dialed")
		}})
		pass(time.Minute)
		client.Close()
		if got := client.Addresses(); got != "a:1,b:2" {
			t.Fatal(got)
		}
	})

	bubble(t, "takes any of its addresses", func(t *testing.T) {
		w := newWorld(t)
		client := New(Config{Addresses: append([]string{"127.0.0.1:1"}, w.ListenAddrs()...), Dial: w.dial})
		defer client.Close()
		for range 5 {
			_, err := client.Topic(t.Context(), "orders")
			wantError(t, err, kafka.UnknownTopicOrPartition)
		}
	})

	bubble(t, "is safe for many at once", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 4, nil)
		var wait sync.WaitGroup
		for i := range 40 {
			wait.Go(func() {
				p := int32(i % 4)
				if _, err := w.Produce(t.Context(), one, topic, []Batch{{p, plain("a")}}); err != nil {
					t.Error(err)
				}
				w.fetch(topic, p, 0)
				if _, err := w.Offsets(t.Context(), topic, []int32{0, 1, 2, 3}, HighWatermark); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		at, err := w.Offsets(t.Context(), topic, []int32{0, 1, 2, 3}, HighWatermark)
		if err != nil {
			t.Fatal(err)
		}
		wantOffsets(t, at, map[int32]int64{0: 10, 1: 10, 2: 10, 3: 10})
	})
}
