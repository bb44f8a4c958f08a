// Package site is the site behind a queue: it answers a request with the body
// that came, after some work or at once, and counts what it answered.
package site

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Site answers every POST, and at /served tells (GET) and forgets (DELETE) what it
// has answered.
type Site struct {
	// Work is how long a request takes, without any use of the processor.
	Work time.Duration

	mu          sync.Mutex
	served      int
	first, last time.Time // the first request came, the last one was answered
}

// ServeHTTP implements http.Handler.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		s.answer(w, r)
	case r.URL.Path != "/served":
		http.NotFound(w, r)
	case r.Method == http.MethodGet:
		s.tell(w)
	case r.Method == http.MethodDelete:
		s.forget()
	default:
		http.Error(w, "", http.StatusMethodNotAllowed)
	}
}

// answer refuses the requests of the customer whose name is "poisoned".
func (s *Site) answer(w http.ResponseWriter, r *http.Request) {
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
	if s.Work > 0 {
		timer := time.NewTimer(s.Work)
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
func (s *Site) tell(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int64{"served": int64(s.served), "within": int64(s.last.Sub(s.first))})
}

// forget counts anew.
func (s *Site) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served, s.first, s.last = 0, time.Time{}, time.Time{}
}
