package deliver

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

// What a handler sees is the request as it was, and what it answers is the reply.
func TestDelivery(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		seen := make(chan *http.Request, 1)
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			seen <- req
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusCreated)
			return echo(w, req)
		}))
		r.send(1, keyless)
		r.want("s0", "201 0")
		req := <-seen
		got := []string{
			req.Method, req.URL.String(), req.RequestURI, req.Host, req.RemoteAddr, strconv.FormatInt(req.ContentLength, 10),
			req.Header.Get("Content-Type"), req.Header.Get("Accept-Encoding"), req.Header.Get(HeaderStreamID), req.Header.Get(HeaderAttempt),
			req.TLS.ServerName,
		}
		want := []string{
			"POST", "/orders?rush=1", "/orders?rush=1", "example.com:8443", "203.0.113.7:0", "1",
			"text/plain", "", "s0", "1", "example.com",
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%d: %q, want %q", i, got[i], want[i])
			}
		}
		r.done(1)
	})
}

// A failed try is told, counted and repeated after a pause, and the last one
// leaves a dead letter with the record as it was.
func TestRetries(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "s0" && req.Header.Get(HeaderAttempt) == "2" {
				return echo(w, req)
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return nil
		}))
		r.send(2, keyless)
		r.want("s0", "retrying 1: 503 Service Unavailable", "200 0")
		r.want("s1", "retrying 1: 503 Service Unavailable", "retrying 2: 503 Service Unavailable", "failed after 3: 503 Service Unavailable")
		r.done(2)
		dead := r.read(testDead)
		if len(dead) != 1 || string(dead[0].Value) != "1" {
			t.Fatalf("%+v", dead)
		}
		for name, want := range map[string]string{
			HeaderDeadReason: "Service Unavailable", HeaderDeadCode: "503", HeaderDeadAttempts: "3",
			HeaderDeadTopic: testTopic, HeaderDeadPartition: "0", HeaderDeadOffset: "1", ":path": "/orders?rush=1",
		} {
			if got, _ := dead[0].Header(name); string(got) != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

// A key that fails holds only itself, and its records keep their order.
func TestOrderPerKey(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		order := make(chan string, 100)
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			id := req.Header.Get(HeaderStreamID)
			if id == "s0" && req.Header.Get(HeaderAttempt) != "3" {
				return &Failure{Code: 502, Err: http.ErrServerClosed}
			}
			order <- id
			return echo(w, req)
		}))
		r.send(6, func(i int) string { return strconv.Itoa(i % 2) })
		r.done(6)
		close(order)
		var even, all string
		begun := time.Now()
		for id := range order {
			all += id + " "
			if n, _ := strconv.Atoi(id[1:]); n%2 == 0 {
				even += id + " "
			}
		}
		if even != "s0 s2 s4 " || all[:9] != "s1 s3 s5 " {
			t.Errorf("%s, after %s", all, time.Since(begun))
		}
	})
}
