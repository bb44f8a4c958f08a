package load

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve gives the address of a server that ends with the test.
func serve(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
}

func TestExchange(t *testing.T) {
	var seen atomic.Int64
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != string(JSON(100)) || r.Header.Get("X-Customer") == "" {
			t.Errorf("%q %v %v", body, r.Header, err)
		}
		w.Header().Set("Location", fmt.Sprintf("/%d", seen.Add(1)))
		w.WriteHeader(http.StatusAccepted)
	})
	locations := make(map[string]bool)
	x := Exchange{
		Address: address, Connections: 5, Status: http.StatusAccepted, Limit: 103,
		Requests: [][]byte{
			Post(address, "/orders", JSON(100), "X-Customer: a"),
			Post(address, "/orders", JSON(100), "X-Customer: b"),
		},
		Answer: func(h Head) { locations[string(h.Location)] = true },
	}
	r, err := x.Run(t.Context(), time.Minute)
	if err != nil || r.Answers != 103 || len(r.Latencies) != 103 || len(locations) != 103 || seen.Load() != 103 {
		t.Errorf("%d answers, %d latencies, %d locations, %d requests, %v", r.Answers, len(r.Latencies), len(locations), seen.Load(), err)
	}
	x.Limit = 0
	if r, err := x.Run(t.Context(), time.Millisecond); err != nil || r.Answers < 5 {
		t.Errorf("%d answers, %v", r.Answers, err)
	}
	x.Status = http.StatusOK
	if _, err := x.Run(t.Context(), time.Minute); err == nil || !strings.Contains(err.Error(), "another kind than 200") {
		t.Errorf("%v", err)
	}
}

func TestExchangeWithAServerThatCloses(t *testing.T) {
	address := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	x := Exchange{Address: address, Connections: 1, Status: http.StatusOK, Requests: [][]byte{Post(address, "/", nil)}}
	if _, err := x.Run(t.Context(), time.Minute); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}

func TestTrip(t *testing.T) {
	var opened atomic.Int64
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Location", "/stream")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		opened.Add(1)
		for _, event := range []string{": hello", "event: status\ndata: {}", "data: reply", "event: end\ndata: {}"} {
			fmt.Fprintf(w, "%s\n\n", event)
			_ = http.NewResponseController(w).Flush()
		}
	})
	r, err := Trip{Address: address, Connections: 3, Request: Post(address, "/orders", JSON(32))}.Run(t.Context(), 10*time.Millisecond)
	if err != nil || r.Answers < 3 || r.Answers != int(opened.Load()) || len(r.Latencies) != r.Answers || r.PerSecond() <= 0 {
		t.Errorf("%d answers, %d streams, %v", r.Answers, opened.Load(), err)
	}
}

func TestTripWithoutReply(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Location", "/stream")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		_ = http.NewResponseController(w).Flush()
	})
	_, err := Trip{Address: address, Connections: 1, Request: Post(address, "/", nil)}.Run(t.Context(), time.Minute)
	if !errors.Is(err, errNoReply) {
		t.Errorf("%v", err)
	}
}
