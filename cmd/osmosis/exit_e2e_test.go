//go:build e2e && unix

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// deliverTo is a site with a queue that an upstream answers.
func deliverTo(upstream, drain string) string {
	return fmt.Sprintf("\tosmosis /orders orders {\n\t\tdeliver {\n\t\t\tdrain %s\n\t\t\treverse_proxy %s {\n\t\t\t\tflush_interval -1\n\t\t\t}\n\t\t}\n\t}\n\trespond \"the rest of the site\"", drain, upstream)
}

// exitCode waits until the process has ended by itself.
func (g *gateway) exitCode() int {
	g.t.Helper()
	select {
	case <-g.exited:
	case <-time.After(patience):
		g.t.Fatal("the gateway does not end")
	}
	return g.cmd.ProcessState.ExitCode()
}

// replies reads a stream's replies and its end, without what it tells of the
// request's state meanwhile.
func replies(ctx context.Context, url, lastID string, stop func(event) bool) ([]event, error) {
	_, told, err := sse(ctx, url, lastID, stop)
	return slices.DeleteFunc(told, func(e event) bool { return e.Type == "status" }), err
}

// TestAnExitWaitsForATry tells the gateway to end while an answer comes word by
// word. It ends when the answer has; nothing of it is lost, and it is not asked
// for again.
func TestAnExitWaitsForATry(t *testing.T) {
	t.Parallel()
	const words = 12
	b := newBehind(t, words, 500*time.Millisecond)
	global, _ := embeddedBroker(t)
	g := newGateway(t, global, deliverTo(b.URL, "20s"))
	g.start()
	a := post(t, g, path(0), "")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// The client that listens all along is told of what comes after the signal too,
	// and then to come back.
	told, err := replies(ctx, a.Stream, "", func(e event) bool {
		if e.Data == "word 1" {
			g.signal(syscall.SIGTERM)
		}
		return e.Type == "end"
	})
	if err != nil || len(told) < words/2 {
		t.Fatalf("the stream told %+v, %v", told, err)
	}
	ended := time.Now()
	if code := g.exitCode(); code != caddy.ExitCodeSuccess {
		t.Errorf("exit code %d", code)
	}
	took := time.Since(ended)
	before := len(told)
	g.start()
	rest, err := replies(ctx, a.Stream, told[before-1].ID, never)
	if err != nil {
		t.Fatal(err)
	}
	if told = append(told, rest...); len(told) != words+1 || told[words].Type != "end" {
		t.Errorf("the streams told %+v", told)
	}
	again, err := replies(ctx, a.Stream, "", never)
	if err != nil || len(again) != words+1 || again[words].Type != "end" {
		t.Fatalf("after the start the stream tells %+v, %v", again, err)
	}
	for i, e := range again[:words] {
		if e.Data != fmt.Sprintf("word %d", i) || e != told[i] {
			t.Errorf("%d: %+v", i, e)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tries[0] != 1 {
		t.Errorf("%d tries", b.tries[0])
	}
	t.Logf("%d of %d events were told before the process ended, %s after the last, and all of them by the next one; %d try", before, words+1, took.Round(time.Millisecond), b.tries[0])
}

// TestASecondSignalEndsAtOnce loses patience with an exit that waits. That is a
// kill: the next start tries the request again.
func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	for _, first := range []struct {
		name string
		tell func(ctx context.Context, g *gateway)
	}{
		{"after SIGTERM", func(_ context.Context, g *gateway) { g.signal(syscall.SIGTERM) }},
		{"after caddy stop", func(ctx context.Context, g *gateway) {
			stop := g.command(ctx, "stop", "--address", g.Admin)
			if err := stop.Start(); err != nil {
				g.t.Fatal(err)
			}
			g.t.Cleanup(func() { _ = stop.Wait() }) // its connection breaks with the process
		}},
	} {
		t.Run(first.name, func(t *testing.T) {
			t.Parallel()
			var tries atomic.Int32
			begun, cut := make(chan struct{}), make(chan struct{})
			site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tries.Add(1) > 1 {
					fmt.Fprint(w, "the answer")
					return
				}
				close(begun)
				<-r.Context().Done()
				close(cut)
			}))
			t.Cleanup(site.Close)
			global, _ := embeddedBroker(t)
			g := newGateway(t, global, deliverTo(site.URL, "10m"))
			g.start()
			a := post(t, g, "/orders", "")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			await := func(what string, c <-chan struct{}) {
				t.Helper()
				select {
				case <-c:
				case <-ctx.Done():
					t.Fatalf("not within %s: %s", patience, what)
				}
			}
			await("a try", begun)
			first.tell(ctx, g)
			await("the exit begins", logs(ctx, g, "exiting"))
			select {
			case <-cut:
				t.Fatal("the exit did not wait for the try")
			case <-g.exited:
				t.Fatal("the process has ended, with a try under way")
			case <-time.After(time.Second):
			}
			g.signal(syscall.SIGTERM)
			if code := g.exitCode(); code != caddy.ExitCodeForceQuit {
				t.Errorf("exit code %d", code)
			}
			await("the try is cut", cut)
			began := time.Now()
			g.start()
			told, err := replies(ctx, a.Stream, "", never)
			if err != nil || len(told) != 2 || told[0].Data != "the answer" || told[1].Type != "end" || tries.Load() != 2 {
				t.Errorf("the stream told %+v, %v after %d tries", told, err, tries.Load())
			}
			t.Logf("the next start had the answer %s later, by try %d", time.Since(began).Round(100*time.Millisecond), tries.Load())
		})
	}
}

// logs gives a channel that is closed when the gateway has logged a text.
func logs(ctx context.Context, g *gateway, text string) <-chan struct{} {
	found := make(chan struct{})
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !strings.Contains(g.log.String(), text) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		close(found)
	}()
	return found
}
