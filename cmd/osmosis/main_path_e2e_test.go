//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// route queues orders; everything else answers as a site would.
const route = "\tosmosis /orders orders\n\trespond \"the rest of the site\""

// embeddedBroker configures the embedded broker on a port of its own, and gives its address.
func embeddedBroker(t testing.TB) (global, address string) {
	t.Helper()
	address = exampletest.FreeAddress(t)
	return "\t\tembedded {\n\t\t\tlisten " + address + "\n\t\t}", address
}

// TestEveryFormOfAStreamOnTheEmbeddedBroker follows one request to its end.
func TestEveryFormOfAStreamOnTheEmbeddedBroker(t *testing.T) {
	global, address := embeddedBroker(t)
	g := newGateway(t, global, route)
	g.start()
	everyForm(t, g, []string{address})
}

// TestEveryFormOfAStreamOnRealKafka does the same with the one other line of configuration.
func TestEveryFormOfAStreamOnRealKafka(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{})
	g := newGateway(t, "\t\tkafka "+strings.Join(cluster.Addresses(), " "), route)
	g.start()
	everyForm(t, g, cluster.Addresses())
	checkCreated(t, cluster.Addresses())
}

func everyForm(t *testing.T, g *gateway, brokers []string) {
	worker(t, brokers, "orders", 2)
	a := post(t, g, "/orders", `{"item":"tea"}`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	status, events, err := sse(ctx, a.Stream, "", never)
	if err != nil || status != http.StatusOK || len(events) != 3 {
		t.Fatalf("SSE: %d %+v %v", status, events, err)
	}
	for i, want := range []event{{Type: "message", Data: `"part":0`}, {Type: "message", Data: `"part":1`}, {Type: "end", Data: `"status":"replied"`}} {
		if events[i].Type != want.Type || !strings.Contains(events[i].Data, want.Data) || events[i].ID == "" {
			t.Errorf("event %d: %+v", i, events[i])
		}
	}
	if last := events[1].ID; events[2].ID != last+"-end" {
		t.Errorf("the end's id is %q after %q", events[2].ID, last)
	}
	// Resuming in the middle gives the rest, after the last reply the end again, after the end nothing.
	if _, rest, err := sse(ctx, a.Stream, events[0].ID, never); err != nil || len(rest) != 2 || rest[0] != events[1] {
		t.Errorf("after the first reply: %+v %v", rest, err)
	}
	if _, rest, err := sse(ctx, a.Stream, events[1].ID, never); err != nil || len(rest) != 1 || rest[0] != events[2] {
		t.Errorf("after the last reply: %+v %v", rest, err)
	}
	if status, _, err := sse(ctx, a.Stream, events[2].ID, never); err != nil || status != http.StatusNoContent {
		t.Errorf("after the end: %d %v", status, err)
	}

	code, header, body := get(t, a.Stream+"/result")
	if code != http.StatusOK || header.Get("Osmosis-Status") != "replied" || !strings.Contains(body, `"part":1`) {
		t.Errorf("result: %d %v %s", code, header, body)
	}
	code, header, body = get(t, a.Stream, "Accept", "application/json")
	var view struct {
		ID, Status string
		Replies    []struct{ ID, Type, Subject, Source string }
	}
	if err := json.Unmarshal([]byte(body), &view); err != nil || code != http.StatusOK || view.Status != "replied" || view.ID != a.ID || len(view.Replies) != 2 {
		t.Errorf("JSON: %d %s %v", code, body, err)
	}
	if code, _, _ := get(t, a.Stream, "If-None-Match", header.Get("ETag"), "Prefer", "wait=5"); code != http.StatusNotModified {
		t.Errorf("JSON with its ETag: %d", code)
	}

	conn, _, err := websocket.Dial(ctx, strings.Replace(a.Stream, "http", "ws", 1), &websocket.DialOptions{Subprotocols: []string{"cloudevents.json"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	if conn.Subprotocol() != "cloudevents.json" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	var types []string
	for {
		_, frame, err := conn.Read(ctx)
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var e struct{ Type, ID, Cursor, Subject string }
		if err := json.Unmarshal(frame, &e); err != nil || e.Subject != a.ID || e.Cursor == "" {
			t.Errorf("frame %s %v", frame, err)
		}
		types = append(types, e.Type)
	}
	if !slices.Equal(types, []string{"osmosis.reply", "osmosis.reply", "osmosis.end"}) {
		t.Errorf("WebSocket: %q", types)
	}

	// A browser that asks for the page is sent on, since the stream has ended.
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, a.Stream, nil)
	request.Header.Set("Accept", "text/html")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusSeeOther || !strings.Contains(response.Header.Get("Location"), "/result") {
		t.Errorf("page: %s %v", response.Status, response.Header)
	}

	// Old clients need not know of the queue.
	request, _ = http.NewRequestWithContext(ctx, http.MethodPost, g.URL+"/orders", strings.NewReader("waiting"))
	request.Header.Set("Prefer", "wait=60")
	if response, err = http.DefaultClient.Do(request); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK || string(text) != `{"echo":"waiting","part":1}` {
		t.Errorf("wait: %s %s", response.Status, text)
	}
}
