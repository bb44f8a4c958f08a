package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// site is what the members deliver to: it answers quick requests at once, long
// ones after a while, and knows when each try has begun.
type site struct {
	url    string
	server *http.Server

	mu sync.Mutex
	// quick are the first tries of the quick requests.
	quick map[int]try
	jobs  map[int]*job
	// forgiven are the tries that were cut or repeated before a kill, if there is
	// one: what comes after it is not counted.
	forgiven *lost
}

// try is when a try has begun, and which member's it is.
type try struct {
	began time.Time
	by    string
}

// job is a long request as the site has seen it.
type job struct{ tries, cut, done int }

// lost counts what must not be.
type lost struct{ cut, repeated int }

// newSite serves on an address of its own.
func newSite() (*site, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the site: %w", err)
	}
	s := &site{url: "http://" + l.Addr().String(), quick: make(map[int]try), jobs: make(map[int]*job)}
	mux := http.NewServeMux()
	mux.HandleFunc("/quick/{n}", s.answer)
	mux.HandleFunc("/long/{n}", s.work)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	go func() { _ = s.server.Serve(l) }() // until close
	return s, nil
}

func (s *site) close() { _ = s.server.Close() }

// answer answers a quick request.
func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.quick[n]; !ok {
		s.quick[n] = try{now, r.Header.Get("Bench-Member")}
	}
}

// parts is how many parts the answer to a long request has. Every other one's are
// sent as they come.
const parts = 10

// work answers a long request.
func (s *site) work(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.note(n, func(j *job) { j.tries++ })
	for part := range parts {
		if !pause(r.Context(), *long/parts) {
			s.note(n, func(j *job) { j.cut++ })
			return
		}
		fmt.Fprintf(w, "part %d\n", part)
		if n%2 == 0 {
			_ = http.NewResponseController(w).Flush()
		}
	}
	s.note(n, func(j *job) { j.done++ })
}

func (s *site) note(n int, change func(*job)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[n] == nil {
		s.jobs[n] = new(job)
	}
	change(s.jobs[n])
}

func begun(j job) bool { return j.tries > 0 }
func ended(j job) bool { return j.done > 0 }

// await waits until long requests from one on are all in a certain state.
func (s *site) await(ctx context.Context, from, n int, is func(job) bool) error {
	ctx, cancel := context.WithTimeout(ctx, *long+patience)
	defer cancel()
	for {
		count := 0
		s.mu.Lock()
		for i := from; i < from+n; i++ {
			if j := s.jobs[i]; j != nil && is(*j) {
				count++
			}
		}
		s.mu.Unlock()
		if count == n {
			return nil
		}
		const interval = 20 * time.Millisecond
		if !pause(ctx, interval) {
			return fmt.Errorf("wait for the long tries: %d of %d: %w", count, n, ctx.Err())
		}
	}
}

// forgive has what follows not count.
func (s *site) forgive() {
	now := s.lost()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgiven = &now
}

// lost counts the long tries that were cut, and those that were not the first of
// their request.
func (s *site) lost() lost {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgiven != nil {
		return *s.forgiven
	}
	var l lost
	for _, j := range s.jobs {
		l.cut += j.cut
		l.repeated += max(0, j.tries-1)
	}
	return l
}

// first gives the first try of a quick request.
func (s *site) first(n int) (try, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.quick[n]
	return t, ok
}
