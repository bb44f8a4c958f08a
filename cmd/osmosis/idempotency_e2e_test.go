//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// sharedSecret is what gateways have in common that serve each other's streams.
const sharedSecret = "\n\t\ttoken {\n\t\t\tkey a-secret-that-these-tests-share\n\t\t}"

// TestRacingIdempotencyKeysOnRealKafka has clients race with the same keys over
// two gateways, which are then restarted, one by `stop` and one by SIGKILL.
func TestRacingIdempotencyKeysOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	global := "\t\tkafka " + strings.Join(cluster.Addresses(), " ") + sharedSecret
	gateways := []*gateway{newGateway(t, global, route), newGateway(t, global, route)}
	for _, g := range gateways {
		g.start()
	}
	r := &keyRace{t: t, gateways: gateways, streams: make(map[string]map[string]int)}
	for _, g := range gateways {
		r.ready(g)
	}
	const clients, keys = 20, 200

	r.run(clients, keys, func(k int) string { return fmt.Sprintf(`{"order":%d}`, k) }, http.StatusAccepted)
	r.judge("race", keys, clients*keys)
	r.run(1, keys, func(k int) string { return fmt.Sprintf(`{"another":%d}`, k) }, http.StatusUnprocessableEntity)

	gateways[0].stop()
	gateways[1].kill()
	for _, g := range gateways {
		g.start()
	}
	for _, g := range gateways {
		r.ready(g)
	}
	r.run(clients, keys, func(k int) string { return fmt.Sprintf(`{"order":%d}`, k) }, http.StatusAccepted)
	r.judge("after the restart", keys, 2*clients*keys)
	r.run(1, keys, func(k int) string { return fmt.Sprintf(`{"another":%d}`, k) }, http.StatusUnprocessableEntity)

	queued := make(map[string]int)
	for _, rec := range readTopic(t, cluster.Addresses(), "orders") {
		request, err := record.ParseRequest(recordOf(rec))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(request.Body), `{"order":`) {
			queued[request.StreamID]++
		}
	}
	for key, ids := range r.streams {
		for id := range ids {
			if queued[id] != 1 {
				t.Errorf("key %s: its request is on the topic %d times", key, queued[id])
			}
		}
	}
	if len(queued) != keys {
		t.Errorf("%d requests are on the topic, want %d", len(queued), keys)
	}
	t.Logf("%d clients, %d keys, 2 gateways: %s, and %d requests on the topic", clients, keys, r.tally(), len(queued))

	// What a repeat was given is a stream like any other.
	worker(t, cluster.Addresses(), "orders", 1)
	a, _, _ := r.send(gateways[1], "key-7", `{"order":7}`)
	if code, _, body := get(t, a.Stream+"/result", "Prefer", "wait=60"); code != http.StatusOK || !strings.Contains(body, `{\"order\":7}`) {
		t.Errorf("%d %s", code, body)
	}
}

// TestIdempotencyKeysOnTheEmbeddedBroker does the same with one gateway, whose
// broker goes with it.
func TestIdempotencyKeysOnTheEmbeddedBroker(t *testing.T) {
	global, address := embeddedBroker(t)
	g := newGateway(t, global, route)
	g.start()
	r := &keyRace{t: t, gateways: []*gateway{g}, streams: make(map[string]map[string]int)}
	r.ready(g)
	const clients, keys = 5, 50
	body := func(k int) string { return fmt.Sprintf(`{"order":%d}`, k) }
	r.run(clients, keys, body, http.StatusAccepted)
	g.kill()
	g.start()
	r.ready(g)
	r.run(clients, keys, body, http.StatusAccepted)
	r.judge("before and after SIGKILL", keys, 2*clients*keys)
	queued := 0
	for _, rec := range readTopic(t, []string{address}, "orders") {
		if strings.HasPrefix(string(rec.Value), `{"order":`) {
			queued++
		}
	}
	if queued != keys {
		t.Errorf("%d requests are on the topic, want %d", queued, keys)
	}
	t.Logf("%d clients, %d keys, embedded broker: %s, and %d requests on the topic", clients, keys, r.tally(), queued)
}

// keyRace counts what requests with idempotency keys come to.
type keyRace struct {
	t        testing.TB
	gateways []*gateway

	mu       sync.Mutex
	streams  map[string]map[string]int // key → stream id → 202s
	statuses map[int]int
	replayed int
}

// ready waits until a gateway has read the claims. The key is one of its own.
func (r *keyRace) ready(g *gateway) {
	g.eventually("claims are read", func() error {
		_, status, body := r.send(g, "ready-"+g.URL, "ready")
		if status != http.StatusAccepted {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// send posts an order with a key.
func (r *keyRace) send(g *gateway, key, body string) (a accepted, status int, text string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+"/orders", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Idempotency-Key", `"`+key+`"`)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Error(err)
		return a, 0, ""
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Error(err)
	}
	if response.StatusCode == http.StatusAccepted {
		if err := json.Unmarshal(b, &a); err != nil {
			r.t.Error(err)
		}
		if response.Header.Get("Idempotent-Replayed") == "true" && strings.HasPrefix(key, "key-") {
			r.mu.Lock()
			r.replayed++
			r.mu.Unlock()
		}
	}
	return a, response.StatusCode, string(b)
}

// run has every client send every key's request once, in an order of its own,
// each to either gateway.
func (r *keyRace) run(clients, keys int, body func(k int) string, want int) {
	r.t.Helper()
	var racing sync.WaitGroup
	for range clients {
		racing.Go(func() {
			// Half of the clients' orders are the same, so that they do race.
			for _, k := range rand.New(rand.NewPCG(rand.Uint64N(2), 0)).Perm(keys) {
				key := fmt.Sprintf("key-%d", k)
				a, status, text := r.send(r.gateways[rand.IntN(len(r.gateways))], key, body(k))
				if status != want {
					r.t.Errorf("%s: %d, want %d: %s", key, status, want, text)
				}
				r.mu.Lock()
				if r.statuses == nil {
					r.statuses = make(map[int]int)
				}
				r.statuses[status]++
				if status == http.StatusAccepted {
					if r.streams[key] == nil {
						r.streams[key] = make(map[string]int)
					}
					r.streams[key][a.ID]++
				}
				r.mu.Unlock()
			}
		})
	}
	racing.Wait()
}

// judge fails unless each key has one stream.
func (r *keyRace) judge(when string, keys, accepted int) {
	r.t.Helper()
	sum := 0
	for key, ids := range r.streams {
		if len(ids) != 1 {
			r.t.Errorf("%s: %s has %d streams", when, key, len(ids))
		}
		for _, n := range ids {
			sum += n
		}
	}
	if len(r.streams) != keys || sum != accepted {
		r.t.Errorf("%s: %d keys, %d times 202; want %d and %d", when, len(r.streams), sum, keys, accepted)
	}
}

// tally tells the counts.
func (r *keyRace) tally() string {
	streams := make(map[string]bool)
	for _, ids := range r.streams {
		for id := range ids {
			streams[id] = true
		}
	}
	return fmt.Sprintf("statuses %v, %d of the 202s repeats, %d streams", r.statuses, r.replayed, len(streams))
}
