//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// TestAKilledGatewayLosesNothingOnTheEmbeddedBroker kills gateway and broker,
// which are one process, between the 202 and the replies.
func TestAKilledGatewayLosesNothingOnTheEmbeddedBroker(t *testing.T) {
	global, address := embeddedBroker(t)
	g := newGateway(t, global, route)
	g.start()
	killedBetween202AndReply(t, g, []string{address})
}

// TestAKilledGatewayLosesNothingOnRealKafka kills the gateway alone.
func TestAKilledGatewayLosesNothingOnRealKafka(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{})
	g := newGateway(t, "\t\tkafka "+strings.Join(cluster.Addresses(), " "), route)
	g.start()
	killedBetween202AndReply(t, g, cluster.Addresses())
}

func killedBetween202AndReply(t *testing.T, g *gateway, brokers []string) {
	const requests = 20
	var waiting []accepted
	for i := range requests {
		waiting = append(waiting, post(t, g, "/orders", fmt.Sprintf(`{"n":%d}`, i)))
	}
	g.kill()
	g.start()
	worker(t, brokers, "orders", 3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Half of the clients saw a part before a second kill, and resume behind it.
	first := make([][]event, requests)
	for i := range requests / 2 {
		_, events, err := sse(ctx, waiting[i].Stream, "", func(event) bool { return true })
		if err != nil || len(events) != 1 {
			t.Fatalf("stream %d: %+v %v", i, events, err)
		}
		first[i] = events
	}
	// The worker is through with all of them: it repeats what it is killed in,
	// as any worker does, and that is not what is tested here.
	for i, a := range waiting {
		if code, _, body := get(t, a.Stream+"/result", "Prefer", "wait=60"); code != http.StatusOK {
			t.Fatalf("stream %d: %d %s", i, code, body)
		}
	}
	g.kill()
	g.start()
	for i, a := range waiting {
		last := ""
		if len(first[i]) > 0 {
			last = first[i][0].ID
		}
		_, rest, err := sse(ctx, a.Stream, last, never)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range append(first[i], rest...) {
			got = append(got, e.Type+" "+e.Data)
		}
		echo, _ := json.Marshal(fmt.Sprintf(`{"n":%d}`, i))
		want := []string{
			fmt.Sprintf(`message {"echo":%s,"part":0}`, echo), fmt.Sprintf(`message {"echo":%s,"part":1}`, echo), fmt.Sprintf(`message {"echo":%s,"part":2}`, echo),
		}
		if len(got) != 4 || !slices.Equal(got[:3], want) || !strings.HasPrefix(got[3], "end ") {
			t.Errorf("stream %d: %q", i, got)
		}
	}
	t.Logf("%d requests accepted before SIGKILL, %d streams read to their end after it, every reply once", requests, len(waiting))
}

// TestTheSiteOutlivesItsBrokerOnRealKafka stops Kafka under a running gateway
// and starts it again.
func TestTheSiteOutlivesItsBrokerOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	g := newGateway(t, "\t\tkafka "+strings.Join(cluster.Addresses(), " ")+"\n\t\tproduce_timeout 3s", route)
	g.start()
	post(t, g, "/orders", "before")
	cluster.Kill()

	began := time.Now()
	response, err := http.Post(g.URL+"/orders", "text/plain", strings.NewReader("meanwhile"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	took := time.Since(began)
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" ||
		response.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("with Kafka down: %s %v %s", response.Status, response.Header, body)
	}
	t.Logf("with Kafka down: %s, Retry-After %s, after %s (produce_timeout 3s): %s", response.Status, response.Header.Get("Retry-After"), took.Round(time.Millisecond), body)
	if code, _, text := get(t, g.URL+"/elsewhere"); code != http.StatusOK || text != "the rest of the site" {
		t.Errorf("the rest of the site: %d %s", code, text)
	}

	cluster.Restart()
	g.eventually("202 again", func() error {
		response, err := http.Post(g.URL+"/orders", "text/plain", strings.NewReader("after"))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusAccepted {
			text, _ := io.ReadAll(response.Body)
			return fmt.Errorf("%s %s", response.Status, text)
		}
		return nil
	})
}

// TestAGatewayStartsWithoutItsBroker begins with an address that nobody listens on.
func TestAGatewayStartsWithoutItsBroker(t *testing.T) {
	g := newGateway(t, "\t\tkafka "+exampletest.FreeAddress(t)+"\n\t\tproduce_timeout 1s", route)
	g.start()
	response, err := http.Post(g.URL+"/orders", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("%s %v", response.Status, response.Header)
	}
	g.stop()
}

// TestAReloadCutsNothing reloads again and again under load, and counts at the
// broker how often the gateway joins its group.
func TestAReloadCutsNothing(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	joins := countJoins(cluster)
	global := "\t\tkafka " + strings.Join(cluster.ListenAddrs(), " ")
	g := newGateway(t, global, route)
	g.start()
	// One request that nobody answers before the reloads are over, followed all along.
	held := post(t, g, "/orders", "held")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	type outcome struct {
		events []event
		err    error
	}
	followed := make(chan outcome, 1)
	go func() {
		_, events, err := sse(ctx, held.Stream, "", never)
		followed <- outcome{events, err}
	}()
	g.eventually("the gateway has joined", func() error {
		if !strings.Contains(g.log.String(), "home partitions") {
			return errors.New("no partitions yet")
		}
		return nil
	})
	before := joins.Load()

	// A connection for each request: one that is kept may be closed by the old
	// server just when the next request is on its way, reload or not.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	const reloads = 5
	stop := make(chan struct{})
	var load sync.WaitGroup
	var sent, refused, cut, control atomic.Int64
	for worker := range 6 {
		// Caddy hands its listener from the old server to the new one, and a
		// connection that the old one has just accepted may be closed unread.
		// That is counted, beside a load on a route without a queue; what has
		// reached a handler must be answered.
		path, cut := "/orders", &cut
		if worker >= 3 {
			path, cut = "/elsewhere", &control
		}
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				response, err := client.Post(g.URL+path, "text/plain", strings.NewReader("load"))
				if err != nil {
					cut.Add(1)
					continue
				}
				response.Body.Close()
				if path == "/elsewhere" {
					continue
				}
				if response.StatusCode != http.StatusAccepted {
					refused.Add(1)
					t.Error(response.Status)
					continue
				}
				sent.Add(1)
			}
		})
	}
	for i := range reloads {
		g.configure(fmt.Sprintf("%s\n\t\tstreams {\n\t\t\tmax_open %d\n\t\t}", global, 1000+i), route)
		g.reload()
	}
	close(stop)
	load.Wait()
	select {
	case o := <-followed:
		t.Fatalf("the open stream was cut: %+v", o)
	default:
	}
	if after := joins.Load(); after != before {
		t.Errorf("%d JoinGroup requests before the reloads, %d after", before, after)
	}
	worker(t, cluster.ListenAddrs(), "orders", 1)
	if o := <-followed; o.err != nil || len(o.events) != 2 {
		t.Errorf("the stream held over the reloads: %+v", o)
	}
	t.Logf("%d reloads, %d requests accepted and %d refused meanwhile, %d JoinGroup before and after; connections closed unread by the server's handover: %d, and %d on a route without a queue",
		reloads, sent.Load(), refused.Load(), before, cut.Load(), control.Load())
}

// TestStopEndsWithOpenStreams stops a gateway that streams to clients that would stay.
func TestStopEndsWithOpenStreams(t *testing.T) {
	global, _ := embeddedBroker(t)
	g := newGateway(t, global, route)
	g.start()
	a := post(t, g, "/orders", "x")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, a.Stream, nil)
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	conn, _, err := websocket.Dial(ctx, strings.Replace(a.Stream, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	closed := make(chan error, 1)
	go func() {
		_, _, err := conn.Read(ctx)
		closed <- err
	}()
	took := g.stop()
	t.Logf("stop with an open event stream and an open WebSocket took %s", took.Round(time.Millisecond))
	text, err := io.ReadAll(response.Body)
	if err != nil || strings.Count(string(text), "retry:") != 2 {
		t.Errorf("the event stream ended with %q, %v", text, err)
	}
	if err := <-closed; websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("the WebSocket ended with %v", err)
	}
}

// TestASecondGatewayOnTheSameDataIsRefused says which directory is in use.
func TestASecondGatewayOnTheSameDataIsRefused(t *testing.T) {
	global, _ := embeddedBroker(t)
	first := newGateway(t, global, route)
	first.start()
	other, _ := embeddedBroker(t)
	second := newGateway(t, other, route)
	second.folder = first.folder
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := second.command(ctx, "run", "--config", second.Caddyfile, "--adapter", "caddyfile").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another process uses this directory") {
		t.Errorf("%v: %s", err, out)
	}
}
