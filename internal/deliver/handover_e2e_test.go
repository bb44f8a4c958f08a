//go:build e2e && unix

package deliver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// answerTime is how long the answers of these tests take. It is longer than a
// session; OSMOSIS_TEST_ANSWER=60s has them take as long as those of a language
// model may.
func answerTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("OSMOSIS_TEST_ANSWER")
	if text == "" {
		return sessionTimeout + 2*time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const answerParts = 5

// longSite is an upstream whose answers take long. Those to requests with an even
// number come in parts.
type longSite struct {
	*httptest.Server
	takes time.Duration

	mu    sync.Mutex
	tries map[int][]string // by the request's number: how each try has ended
}

func newLongSite(t *testing.T) *longSite {
	s := &longSite{takes: answerTime(t), tries: make(map[int][]string)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := numberOf(r.RequestURI)
		if err != nil {
			t.Error(err)
			return
		}
		s.serve(n, w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *longSite) serve(n int, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.tries[n] = append(s.tries[n], "runs")
	try := len(s.tries[n]) - 1
	s.mu.Unlock()
	end := func(how string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tries[n][try] = how
	}
	for part := range answerParts {
		timer := time.NewTimer(s.takes / answerParts)
		select {
		case <-timer.C:
		case <-r.Context().Done():
			timer.Stop()
			end("cut")
			return
		}
		fmt.Fprintf(w, "%d.", part)
		if n%2 == 0 {
			_ = http.NewResponseController(w).Flush()
		}
	}
	end("done")
}

// count counts the requests by how their tries have ended.
func (s *longSite) count(from int) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counted := make(map[string]int)
	for n, tries := range s.tries {
		if n >= from {
			counted[strings.Join(tries, " ")]++
		}
	}
	return counted
}

// until waits until so many requests from one on are tried in a certain way.
func (s *longSite) until(t *testing.T, from, n int, way string) {
	t.Helper()
	for began := time.Now(); s.count(from)[way] < n; {
		if time.Since(began) > patience {
			t.Fatalf("%v after %s, want %d that are %s", s.count(from), patience, n, way)
		}
		wait(100 * time.Millisecond)
	}
}

// texts counts the streams from a request on by what their clients get: the bodies
// of all replies, and the end if that is a failure.
func (f *field) texts(from int) map[string]int {
	f.t.Helper()
	number := make(map[string]int)
	for n, id := range f.ids {
		number[id] = n
	}
	got := make(map[int]*strings.Builder)
	ended := make(map[int]bool)
	for _, rec := range f.read(testReplies) {
		reply, err := record.ParseReply(rec)
		if err != nil {
			f.t.Fatal(err)
		}
		n := number[reply.StreamID]
		if n < from || ended[n] {
			continue
		}
		if got[n] == nil {
			got[n] = new(strings.Builder)
		}
		if reply.State == "" {
			got[n].Write(reply.Body)
		}
		if reply.Terminal() {
			ended[n] = true
			if end := reply.End(); end.Status != record.StateReplied {
				fmt.Fprintf(got[n], " %s: %s", end.Status, end.Reason)
			}
		}
	}
	counted := make(map[string]int)
	for n := from; n < len(f.ids); n++ {
		switch {
		case got[n] == nil:
			counted["nothing"]++
		case !ended[n]:
			counted[got[n].String()+" no end"]++
		default:
			counted[got[n].String()]++
		}
	}
	return counted
}

// begun waits until clients have a part of so many answers.
func (f *field) begun(from, n int) {
	f.t.Helper()
	for began := time.Now(); ; wait(100 * time.Millisecond) {
		texts, out := f.texts(from), 0
		for text, of := range texts {
			if strings.HasPrefix(text, "0.") {
				out += of
			}
		}
		if out >= n {
			return
		}
		if time.Since(began) > patience {
			f.t.Fatalf("%v after %s", texts, patience)
		}
	}
}

const fullText = "0.1.2.3.4."

// longField is a field with three members and an upstream whose answers take long.
func longField(t *testing.T, cluster *kafkatest.Cluster) (*field, *longSite) {
	s := newLongSite(t)
	f := newFieldOn(t, cluster, 12, nil, func(o *order) {
		o.Upstream, o.Concurrency, o.Timeout, o.Drain, o.Attempts = s.URL, 200, time.Hour, s.takes+10*time.Second, 3
	})
	for range 3 {
		f.add()
	}
	f.joined(3)
	return f, s
}

// joined waits until the group has so many members, and each of them its share.
func (f *field) joined(members int) {
	f.t.Helper()
	for began := time.Now(); ; wait(100 * time.Millisecond) {
		groups, err := f.admin.DescribeGroups(f.t.Context(), testTopic)
		group := groups[testTopic]
		if shares := group.AssignedPartitions()[testTopic]; err == nil && group.State == "Stable" && len(group.Members) == members && len(shares) == 12 {
			return
		}
		if time.Since(began) > patience {
			f.t.Fatalf("%d of %d members after %s: %v", len(group.Members), members, patience, err)
		}
	}
}

const longJobs = 108

// begin sends requests and waits until all of them are being tried.
func (f *field) begin(s *longSite) (from int) {
	f.t.Helper()
	from = len(f.ids)
	f.send(longJobs, func(n int) string { return fmt.Sprintf("job %d", n) })
	s.until(f.t, from, longJobs, "runs")
	return from
}

// whole checks that each request was tried once and its client has the whole text.
func (f *field) whole(s *longSite, from int, during string) {
	f.t.Helper()
	s.until(f.t, from, longJobs, "done")
	f.until(0)
	tries, texts := s.count(from), f.texts(from)
	if tries["done"] != longJobs || len(tries) != 1 || texts[fullText] != longJobs || len(texts) != 1 {
		f.t.Errorf("%s: tries %v, texts %v", during, tries, texts)
	}
	f.t.Logf("%s: %d tries of %s for %d requests, %d of them whole and once", during, tries["done"], s.takes, longJobs, texts[fullText])
}

// TestTriesOutliveDeploysOnRealKafka has members join, leave and be replaced while
// they wait for long answers. No try is cut, none is repeated, and each client gets
// its text once and whole.
func TestTriesOutliveDeploysOnRealKafka(t *testing.T) {
	t.Parallel()
	f, s := longField(t, kafkatest.Start(t, kafkatest.Options{}))
	leave := func(m *member) { _ = m.input.Close() }

	from := f.begin(s)
	f.add()
	f.joined(4)
	leave(f.remove())
	f.whole(s, from, "a fourth member joins, and one leaves")

	from = f.begin(s)
	for range 3 {
		f.add()
		wait(s.takes / 10)
		leave(f.remove())
		wait(s.takes / 10)
	}
	f.whole(s, from, "all three are replaced, one after the other")

	from = f.begin(s)
	for range 5 {
		f.add()
	}
	f.joined(8)
	for range 3 {
		leave(f.remove())
	}
	f.whole(s, from, "five join and the three before them leave")
	f.endAll()
	if n := f.evictions(); n > 0 {
		t.Errorf("partitions were lost %d times", n)
	}
}

// TestCoordinatorIsAwayOnRealKafka kills the group's coordinator while the members
// wait for long answers, and brings it back later than a session lasts.
func TestCoordinatorIsAwayOnRealKafka(t *testing.T) {
	t.Parallel()
	for _, brokers := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d brokers", brokers), func(t *testing.T) {
			t.Parallel()
			cluster := kafkatest.Start(t, kafkatest.Options{Brokers: brokers})
			f, s := longField(t, cluster)
			from := f.begin(s)
			coordinator := f.coordinator()
			cluster.Kill(coordinator)
			wait(s.takes / 2)
			cluster.Restart(coordinator)
			f.whole(s, from, fmt.Sprintf("the coordinator, of %d brokers, was away for %s", brokers, s.takes/2))
			f.endAll()
		})
	}
}

// coordinator is the index of the broker that coordinates the group.
func (f *field) coordinator() int {
	f.t.Helper()
	found := f.admin.FindGroupCoordinators(f.t.Context(), testTopic)[testTopic]
	if found.Err != nil {
		f.t.Fatal(found.Err)
	}
	addresses := f.order.Brokers
	for i, address := range addresses {
		if strings.HasSuffix(address, fmt.Sprintf(":%d", found.Port)) {
			return i
		}
	}
	f.t.Fatalf("the coordinator is %s:%d, which is none of %v", found.Host, found.Port, addresses)
	return -1
}

// TestHandedOverAndGoneOnRealKafka has a process leave with tries under way, and
// kills or stops it: another tries whole answers once more, and those that were out
// in part end as failed.
func TestHandedOverAndGoneOnRealKafka(t *testing.T) {
	t.Parallel()
	for _, end := range []struct {
		how    string
		signal syscall.Signal
	}{{"killed", syscall.SIGKILL}, {"stopped for 20 s", syscall.SIGSTOP}} {
		t.Run(end.how, func(t *testing.T) {
			t.Parallel()
			f, s := longField(t, kafkatest.Start(t, kafkatest.Options{}))
			for range 2 {
				f.remove().end()
			}
			f.joined(1)
			only := f.members[0]
			from := f.begin(s)
			f.add()
			f.joined(2)
			f.remove()
			_ = only.input.Close()
			f.begun(from, longJobs/2)
			if only.output.count("partitions given up") == 0 && s.count(from)["runs"] != longJobs {
				t.Fatalf("%v", s.count(from))
			}
			began := time.Now()
			_ = only.cmd.Process.Signal(end.signal)
			again := func(counted map[string]int) (n int) {
				for tries, of := range counted {
					if strings.Contains(tries, " ") {
						n += of
					}
				}
				return n
			}
			for again(s.count(from)) < longJobs/2 {
				if time.Since(began) > patience {
					t.Fatalf("%v after %s", s.count(from), patience)
				}
				wait(50 * time.Millisecond)
			}
			took := time.Since(began)
			if end.signal == syscall.SIGSTOP {
				wait(20*time.Second - time.Since(began))
				_ = only.cmd.Process.Signal(syscall.SIGCONT)
			}
			f.until(0)
			texts := f.texts(from)
			broken := 0
			for text, n := range texts {
				if strings.Contains(text, " failed: "+cutReason) {
					broken += n
				}
			}
			if texts[fullText] != longJobs/2 || broken != longJobs/2 {
				t.Errorf("%v", texts)
			}
			t.Logf("%s: %d whole answers tried once more by another, the last of them %s later; %d half answers failed; tries %v", end.how, again(s.count(from)), took.Round(100*time.Millisecond), broken, s.count(from))
			f.endAll()
		})
	}
}
