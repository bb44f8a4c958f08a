package osmosis

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// slowly makes a worker that takes its time over each request.
func slowly(d time.Duration, reply record.Reply) func(record.Request) []record.Reply {
	return func(r record.Request) []record.Reply {
		<-time.After(d)
		reply.StreamID = r.StreamID
		return []record.Reply{reply}
	}
}

// Who waits gets the worker's own response, as if there were no queue.
func TestWait(t *testing.T) {
	made := record.Reply{
		Status: 201, Body: []byte("done\n"),
		Header: http.Header{"Set-Cookie": {"a=1", "b=2"}, "Content-Type": {"text/x-own"}, "Cache-Control": {"max-age=60"}},
	}
	const work = 2 * time.Second
	for name, test := range map[string]struct {
		route   time.Duration
		prefer  []string
		status  int
		applied string
		least   time.Duration
	}{
		"route":                     {5 * time.Second, nil, 201, "", work},
		"route not long enough":     {time.Second, nil, 202, "", time.Second},
		"client":                    {0, []string{"Prefer", "wait=5"}, 201, "wait=5", work},
		"client not long enough":    {time.Minute, []string{"Prefer", "wait=1"}, 202, "wait=1", time.Second},
		"client will not wait":      {time.Minute, []string{"Prefer", "respond-async"}, 202, "respond-async", 0},
		"client waits for nothing":  {time.Minute, []string{"Prefer", "wait=0"}, 202, "wait=0", 0},
		"client would rather not":   {0, []string{"Prefer", `respond-async, Wait="5"`}, 201, "wait=5", work},
		"client would, and has to":  {0, []string{"Prefer", "respond-async, wait=1"}, 202, "respond-async, wait=1", time.Second},
		"client on two lines":       {0, []string{"Prefer", "handling=lenient", "Prefer", "wait=5"}, 201, "wait=5", work},
		"more than may be asked":    {0, []string{"Prefer", "wait=86400"}, 201, "wait=60", work},
		"neither asks for anything": {0, nil, 202, "", 0},
		"cannot be read":            {0, []string{"Prefer", "wait=soon"}, 202, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
				s.route.Wait = caddyDuration(test.route)
				s.work(slowly(work, made))
				began := time.Now()
				a := s.send(s.post("x", test.prefer...)).want(t, test.status)
				if took := time.Since(began); took < test.least || took > test.least+time.Second {
					t.Errorf("took %s, want %s", took, test.least)
				}
				if got := a.Header.Get("Preference-Applied"); got != test.applied {
					t.Errorf("Preference-Applied %q, want %q", got, test.applied)
				}
				location := a.Header.Get("Location")
				if test.status == http.StatusAccepted {
					s.get(location+"/result", "Prefer", "wait=30").want(t, 201, "done\n")
					return
				}
				if a.body != "done\n" || len(a.Header.Values("Set-Cookie")) != 2 || a.Header.Get("Content-Type") != "text/x-own" ||
					a.Header.Get("Osmosis-Status") != "replied" || a.Header.Get("Cache-Control") != "max-age=60" || location != "" {
					t.Errorf("%q %v", a.body, a.Header)
				}
			})
		})
	}
}

// A worker's redirect is the worker's, and one that gives up is a bad gateway.
func TestWaitForOtherEnds(t *testing.T) {
	queueing(t, &Handler{Wait: caddyDuration(time.Minute)}, func(t *testing.T, s *storefront) {
		s.work(func(r record.Request) []record.Reply {
			switch string(r.Body) {
			case "redirect":
				return []record.Reply{r.Reply(303, http.Header{"Location": {"/thanks"}}, nil)}
			case "parts":
				first := r.Reply(200, nil, []byte("one"))
				first.More = true
				return []record.Reply{first, r.Reply(200, nil, []byte("two"))}
			}
			return []record.Reply{r.Report(record.Status{Status: record.StateFailed, Attempt: 3})}
		})
		a := s.send(s.post("redirect")).want(t, 303)
		if a.Header.Get("Location") != "/thanks" {
			t.Errorf("%v", a.Header)
		}
		s.send(s.post("parts")).want(t, 200, "two")
		s.send(s.post("fail")).want(t, 502, `"status":502`)
	})
}

// What the worker says of itself stands beside what the gateway says of itself.
func TestWaitForWorkersPreferences(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.work(slowly(0, record.Reply{Header: http.Header{"Preference-Applied": {"return=minimal"}, headerReplayed: {"true"}}}))
		a := s.send(s.post("x", "Prefer", "wait=5, return=minimal")).want(t, 200)
		if got := strings.Join(a.Header.Values("Preference-Applied"), ", "); got != "wait=5, return=minimal" || a.Header.Get(headerReplayed) != "" {
			t.Errorf("%v", a.Header)
		}
	})
}

// A form whose answer comes in time needs no page to wait on.
func TestFormPostThatWaits(t *testing.T) {
	queueing(t, &Handler{Wait: caddyDuration(5 * time.Second)}, func(t *testing.T, s *storefront) {
		headers := []string{"Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html"}
		s.send(s.post("a=b", headers...)).want(t, 303)
		s.work(slowly(0, record.Reply{Body: []byte("<p>thanks")}))
		s.send(s.post("a=b", headers...)).want(t, 200, "<p>thanks")
	})
}

// Who goes away while waiting leaves a request that is answered all the same.
func TestClientLeavesWhileWaiting(t *testing.T) {
	queueing(t, &Handler{Wait: caddyDuration(time.Minute)}, func(t *testing.T, s *storefront) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if response, err := s.client.Do(s.post("x").WithContext(ctx)); err == nil {
			response.Body.Close()
			t.Fatal(response.Status)
		}
		_, r := s.only()
		s.reply(claimsOf(r), record.Reply{Body: []byte("late")})
		if got := s.stored(defaultReplies); len(got) != 1 {
			t.Errorf("%v", got)
		}
	})
}

// A client may seem to have gone, as one does that closes its side of the
// connection when it has sent all. It gets what is known by then: nothing would
// be an empty 200.
func TestClientSeemsGone(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			s.serve(w, r.WithContext(ctx))
		})
		begun := time.Now()
		location := s.send(s.post("x", "Prefer", "wait=30")).want(t, 202, `"status":"queued"`).Header.Get("Location")
		s.get(location, "Prefer", "wait=30").want(t, 200, `"status":"queued"`)
		s.get(location+"/result", "Prefer", "wait=30").want(t, 202, `"status":"queued"`)
		if took := time.Since(begun); took > 4*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// What is held counts as an open stream. Beyond the limit nothing is held, and
// the answer is 202 at once.
func TestLimitOfHeldRequests(t *testing.T) {
	limited := func(a *App) { a.Streams = &Streams{MaxOpenPerClient: 1} }
	queueing(t, &Handler{Wait: caddyDuration(time.Minute)}, func(t *testing.T, s *storefront) {
		first := make(chan answer)
		go func() { first <- s.send(s.post("first", "Prefer", "wait=20")) }()
		<-time.After(time.Second)
		if n := streams.count(); n != 1 {
			t.Errorf("%d streams open", n)
		}
		begun := time.Now()
		a := s.send(s.post("second", "Prefer", "wait=20")).want(t, 202)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("took %s", took)
		}
		if applied := a.Header.Get("Preference-Applied"); applied != "" {
			t.Errorf("Preference-Applied %q, and nothing was waited for", applied)
		}
		s.get(a.Header.Get("Location")).want(t, 429)
		(<-first).want(t, 202)
		s.get(a.Header.Get("Location")).want(t, 200)
	}, limited)
}
