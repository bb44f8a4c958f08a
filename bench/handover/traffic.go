package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// traffic puts requests on the topic.
type traffic struct {
	client *kgo.Client
	site   *site
	body   []byte
	jobs   int // sent

	stop    context.CancelFunc
	stopped sync.WaitGroup

	mu   sync.Mutex
	sent []sent // quick requests, by their number
	err  error
}

// sent is a quick request that the broker has.
type sent struct {
	partition int32
	acked     time.Time // zero until then
}

func newTraffic(client *kgo.Client, s *site) *traffic {
	return &traffic{client: client, site: s, body: bytes.Repeat([]byte("x"), *size), stop: func() {}}
}

// request makes the record of a request.
func (t *traffic) request(path, key string) (*kgo.Record, error) {
	n := int32(*partitions) //nolint:gosec // a count of partitions
	replyPartition := rand.Int32N(n)
	made, err := record.FromHTTP(&http.Request{Method: http.MethodPost, Host: "example.com", URL: &url.URL{Path: path}}, t.body, record.Meta{
		StreamID: record.NewID(replyPartition, n), Source: "https://example.com", Type: "osmosis.request", Time: time.Now(), Scheme: "https", ClientIP: "203.0.113.7",
		ReplyTopic: replies, ReplyPartition: replyPartition, Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	r := &kgo.Record{Key: []byte(key), Value: made.Value}
	for _, h := range made.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r, nil
}

// history sends requests over all keys and waits until they are there.
func (t *traffic) history(ctx context.Context, n int) error {
	const atOnce = 5000
	for n > 0 {
		var batch []*kgo.Record
		for range min(n, atOnce) {
			r, err := t.request("/quick/-1", fmt.Sprintf("key %d", n%*keys))
			if err != nil {
				return err
			}
			batch = append(batch, r)
			n--
		}
		if err := t.client.ProduceSync(ctx, batch...).FirstErr(); err != nil {
			return fmt.Errorf("queue what was done before: %w", err)
		}
	}
	return nil
}

// long sends long requests, each of a key of its own, and gives the first one's number.
func (t *traffic) long(ctx context.Context, n int) (from int, err error) {
	from = t.jobs
	var all []*kgo.Record
	for range n {
		r, err := t.request(fmt.Sprintf("/long/%d", t.jobs), fmt.Sprintf("long %d", t.jobs))
		if err != nil {
			return 0, err
		}
		all = append(all, r)
		t.jobs++
	}
	if err := t.client.ProduceSync(ctx, all...).FirstErr(); err != nil {
		return 0, fmt.Errorf("queue long requests: %w", err)
	}
	return from, nil
}

// start begins to send quick requests, at moments that do not depend on how long
// anything takes.
func (t *traffic) start(ctx context.Context) {
	ctx, t.stop = context.WithCancel(ctx)
	t.stopped.Go(func() {
		began := time.Now()
		for n := 0; pause(ctx, time.Until(began.Add(time.Duration(n)*time.Second/time.Duration(*quick)))); n++ {
			t.send(ctx, n)
		}
	})
}

// steady waits until the members have caught up with the quick requests, and a
// while more: for connections, caches and the broker's compiler.
func (t *traffic) steady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if !pause(ctx, *calm) {
			return fmt.Errorf("wait until quick requests are answered at once: %w", ctx.Err())
		}
		all, err := t.waits()
		if err != nil {
			return err
		}
		latest := all[len(all)/2:]
		if len(latest) > 0 && !slices.ContainsFunc(latest, func(q wait) bool { return q.began.Sub(q.acked) > *calm/4 }) {
			return nil
		}
	}
}

// send sends a quick request.
func (t *traffic) send(ctx context.Context, n int) {
	t.mu.Lock()
	t.sent = append(t.sent, sent{})
	t.mu.Unlock()
	// Neighbours have keys far apart, or the partitions would take turns.
	const step = 7
	r, err := t.request(fmt.Sprintf("/quick/%d", n), fmt.Sprintf("key %d", n*step%*keys))
	if err != nil {
		t.fail(err)
		return
	}
	t.client.Produce(ctx, r, func(r *kgo.Record, err error) {
		now := time.Now()
		if err != nil {
			t.fail(err)
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.sent[n] = sent{r.Partition, now}
	})
}

func (t *traffic) fail(err error) {
	if errors.Is(err, context.Canceled) {
		return // the end
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = fmt.Errorf("queue a quick request: %w", err)
	}
}

// end ends the sending of quick requests.
func (t *traffic) end() {
	t.stop()
	t.stopped.Wait()
}

// waits gives what is known of the quick requests that the broker has.
func (t *traffic) waits() ([]wait, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []wait
	for n, s := range t.sent {
		if s.acked.IsZero() {
			continue
		}
		first, ok := t.site.first(n)
		if !ok {
			first.began = time.Now()
		} else if first.began.Before(s.acked) {
			first.began = s.acked // the broker's answer was overtaken
		}
		all = append(all, wait{s.partition, s.acked, first})
	}
	return all, t.err
}
