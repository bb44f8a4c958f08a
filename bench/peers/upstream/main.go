// Command upstream is the site behind a queue: it answers a request with the
// body that came, after some work or at once, and counts what it answered.
//
//	upstream -listen 127.0.0.1:8000 -work 50ms
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// Flags.
var (
	listen = flag.String("listen", "127.0.0.1:0", "serve at this `address`")
	_      = flag.String("admin", "", "ignored")
	work   = flag.Duration("work", 0, "how long a request takes, without any use of the processor")
)

func main() {
	flag.Parse()
	s := &site{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", s.answer)
	mux.HandleFunc("GET /served", s.tell)
	mux.HandleFunc("DELETE /served", s.forget)
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}

// site counts what it answers.
type site struct {
	mu          sync.Mutex
	served      int
	first, last time.Time // the first request came, the last one was answered
}

// answer refuses the requests of the customer whose name is "poisoned".
func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Header.Get("X-Customer") == "poisoned" {
		http.Error(w, "not this one", http.StatusServiceUnavailable)
		return
	}
	if *work > 0 {
		timer := time.NewTimer(*work)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		return // whoever asked is gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served++; s.served == 1 {
		s.first = began
	}
	s.last = time.Now()
}

// tell gives how many requests were answered, and within which time, in nanoseconds.
func (s *site) tell(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int64{"served": int64(s.served), "within": int64(s.last.Sub(s.first))})
}

// forget counts anew.
func (s *site) forget(http.ResponseWriter, *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served, s.first, s.last = 0, time.Time{}, time.Time{}
}
