//go:build e2e

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// behind is the application behind a queue. Request 0 is answered word by word,
// request 1 takes its time, and all others are answered at once.
type behind struct {
	*httptest.Server
	words int
	pause time.Duration // between two words

	mu    sync.Mutex
	tries map[int]int
	begun chan int // each request that begins, as far as somebody looks
}

func newBehind(t *testing.T, words int, pause time.Duration) *behind {
	b := &behind{words: words, pause: pause, tries: make(map[int]int), begun: make(chan int, 1)}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := numberOf(r.RequestURI)
		if err != nil {
			t.Error(err)
			return
		}
		b.mu.Lock()
		b.tries[n]++
		b.mu.Unlock()
		select {
		case b.begun <- n:
		default:
		}
		switch n {
		case 0:
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range b.words {
				fmt.Fprintf(w, "data: word %d\n\n", i)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(b.pause):
				case <-r.Context().Done():
					t.Errorf("the answer in words was cut off after word %d", i)
					return
				}
			}
		case 1:
			select {
			case <-time.After(1500 * time.Millisecond):
			case <-r.Context().Done():
				t.Error("the answer that takes its time was cut off")
			}
		default:
			fmt.Fprintf(w, "request %d", n)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

// send sends a request over a connection of its own: one that is kept may be
// closed by the old server just when the next request is on its way. A new one may
// be too, by Caddy's handover from one listener to the next; that is no status.
func (b *behind) send(url string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Post(url, contentType, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		return errors.New(response.Status)
	}
	return nil
}

// TestAReloadEverySecondWhileDelivering reloads every second for ten seconds
// while a queue is delivered and one answer comes word by word all along: no
// request is tried twice, no process joins the group again, and the answer is
// not cut. Then the gateway is told to stop, with a request under way.
func TestAReloadEverySecondWhileDelivering(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	var joins atomic.Int64
	cluster.ControlKey((&kmsg.JoinGroupRequest{}).Key(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if r.(*kmsg.JoinGroupRequest).Group == "orders" {
			joins.Add(1)
		}
		return nil, nil, false
	})
	const reloads, words = 10, 24
	b := newBehind(t, words, 500*time.Millisecond)
	global := "\t\tkafka " + strings.Join(cluster.ListenAddrs(), " ")
	site := func(concurrency int) string {
		return fmt.Sprintf("\tosmosis /orders orders {\n\t\tdeliver {\n\t\t\tconcurrency %d\n\t\t\treverse_proxy %s {\n\t\t\t\tflush_interval -1\n\t\t\t}\n\t\t}\n\t}\n\trespond \"the rest of the site\"", concurrency, b.URL)
	}
	g := newGateway(t, global, site(8))
	g.start()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	long := post(t, g, path(0), "")
	var told []event
	var listening sync.WaitGroup
	first := make(chan struct{})
	listening.Go(func() {
		once := sync.OnceFunc(func() { close(first) })
		var err error
		_, told, err = sse(ctx, long.Stream, "", func(e event) bool { once(); return e.Type == "end" })
		if err != nil {
			t.Errorf("the stream broke: %v", err)
		}
	})
	select {
	case <-first:
	case <-ctx.Done():
		t.Fatal("no first word")
	}
	before := joins.Load()

	var over atomic.Bool
	sent, lost := 2, make(map[int]bool)
	listening.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ; !over.Load(); <-tick.C {
			err := b.send(g.URL + path(sent))
			var unread *url.Error
			if lost[sent] = errors.As(err, &unread); err != nil && !lost[sent] {
				t.Errorf("request %d: %v", sent, err)
			}
			sent++
		}
	})
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for i := range reloads {
		<-second.C
		g.configure(global, site(9+i))
		g.load()
	}
	over.Store(true)
	listening.Wait()

	if len(told) != words+1 {
		t.Errorf("the stream told %d things: %+v", len(told), told)
	}
	for i, e := range told[:min(words, len(told))] {
		if e.Data != fmt.Sprintf("word %d", i) {
			t.Errorf("%d: %+v", i, e)
		}
	}
	if after := joins.Load(); before == 0 || after != before {
		t.Errorf("%d JoinGroup before the reloads, %d after", before, after)
	}

	// The stop waits for what is under way.
	for len(b.begun) > 0 {
		<-b.begun
	}
	var unread *url.Error
	for err := b.send(g.URL + path(1)); err != nil; err = b.send(g.URL + path(1)) {
		if !errors.As(err, &unread) || ctx.Err() != nil { // the last reload's handover may be under way still
			t.Fatal(err)
		}
	}
	for n := -1; n != 1; {
		select {
		case n = <-b.begun:
		case <-ctx.Done():
			t.Fatal("request 1 was not tried")
		}
	}
	stopped := g.stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for n := range sent {
		if b.tries[n] != 1 && (!lost[n] || b.tries[n] > 1) {
			t.Errorf("request %d was tried %d times", n, b.tries[n])
		}
	}
	ends := make(map[string]int)
	for _, r := range readTopic(t, cluster.ListenAddrs(), "osmosis.replies") {
		reply, err := record.ParseReply(recordOf(r))
		if err != nil {
			t.Fatal(err)
		}
		if reply.Terminal() && reply.Status == http.StatusOK {
			ends[reply.StreamID]++
		}
	}
	tried := len(b.tries)
	if len(ends) != tried {
		t.Errorf("%d requests have an answer, of %d that were tried", len(ends), tried)
	}
	t.Logf("%d reloads, a second apart: %d requests, each tried and answered once, and %d whose connection was closed unread; %d JoinGroup before and after; an answer in %d words over one connection; the stop took %s",
		reloads, tried, sent-tried, before, words, stopped.Round(time.Millisecond))
}
