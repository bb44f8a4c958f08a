//go:build e2e

package deliver

import (
	"encoding/binary"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// tried is a try as the upstream has seen it. All of its places in time count
// on one clock, that of the upstream.
type tried struct {
	member  string
	attempt int
	begun   int64
	ended   int64 // 0: it runs
	effect  int64 // when what it was for was done; 0: never
	took    time.Duration
	silent  bool // it has no answer
}

// upstream is an application behind the processes that deliver. It sees each
// try, and is the judge of what was done, how often and in which order.
type upstream struct {
	*httptest.Server

	mu    sync.Mutex
	clock int64
	tries map[int][]*tried // by the request's number
	// now and peak are how many tries each member has under way, and had at most.
	now, peak map[string]int
	overlaps  int // tries that began while another of the same request ran
	unended   int // of those, how often the other one had no answer and ran until its process would end it
}

// decision is what an upstream makes of a try: a status, and how long it takes.
// 0 is no answer, until the other side has had enough.
type decision func(n, attempt int) (status int, takes time.Duration)

func newUpstream(t *testing.T, decide decision) *upstream {
	u := &upstream{tries: make(map[int][]*tried), now: make(map[string]int), peak: make(map[string]int)}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { u.serve(t, decide, w, r) }))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) serve(t *testing.T, decide decision, w http.ResponseWriter, r *http.Request) {
	n, err := numberOf(r.RequestURI)
	attempt, err2 := strconv.Atoi(r.Header.Get(HeaderAttempt))
	if err != nil || err2 != nil {
		t.Errorf("upstream got %s %s: %v %v", r.Method, r.RequestURI, err, err2)
		return
	}
	// Until the body is read, net/http does not notice that the client is gone.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	began := time.Now()
	status, takes := decide(n, attempt)
	this := u.begin(n, &tried{member: r.Header.Get(headerMember), attempt: attempt, silent: status == 0})
	if status == 0 {
		takes = patience
	}
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	done := status != 0 && !retryable(status)
	u.end(this, done, time.Since(began))
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	if status != 0 {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strconv.Itoa(n))
	}
}

func (u *upstream) begin(n int, this *tried) *tried {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clock++
	this.begun = u.clock
	for _, other := range u.tries[n] {
		if other.ended == 0 {
			u.overlaps++
			if other.silent {
				u.unended++
			}
			break
		}
	}
	u.tries[n] = append(u.tries[n], this)
	u.now[this.member]++
	u.peak[this.member] = max(u.peak[this.member], u.now[this.member])
	return this
}

func (u *upstream) end(this *tried, done bool, took time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clock++
	this.ended, this.took = u.clock, took
	if done {
		this.effect = u.clock
	}
	u.now[this.member]--
}

// highest gives the most tries that any member had under way at once.
func (u *upstream) highest() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	most := 0
	for _, n := range u.peak {
		most = max(most, n)
	}
	return most
}

// dice gives a number below 1,000 for a try, the same each time.
func dice(n, attempt int) int {
	h := fnv.New32a()
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	binary.LittleEndian.PutUint64(b[8:], uint64(attempt))
	_, _ = h.Write(b[:])
	return int(h.Sum32() % 1000)
}
