package osmosis

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A route turns requests away when those before take longer than it admits, and
// says when to come again; with workers that keep up, or where nothing is known,
// it takes them.
func TestAdmit(t *testing.T) {
	route := &Handler{Admit: caddyDuration(10 * time.Second)}
	queueing(t, route, func(t *testing.T, s *storefront) {
		ctx, cancel := context.WithCancel(t.Context())
		var working sync.WaitGroup
		defer working.Wait()
		defer cancel()
		working.Go(func() { route.admission.run(ctx, s.app.inside.client, s.app.logger) })

		commit := func(offset int64) {
			t.Helper()
			answer, err := s.app.inside.client.API().OffsetCommit(ctx, &kafka.OffsetCommitRequest{
				GroupID: testTopic, GenerationID: -1,
				Topics: map[string][]kafka.OffsetCommit{testTopic: {{Offset: offset}}},
			})
			if err != nil || answer.Topics[testTopic][0].Error != nil {
				t.Fatal(err, answer)
			}
		}
		// Nobody works: what waits is taken for as long as it may wait.
		for range 5 {
			s.send(s.post("x")).want(t, http.StatusAccepted)
		}
		pass(15 * time.Second)
		s.send(s.post("x")).want(t, http.StatusTooManyRequests, "Nothing was queued")
		// Someone does two a second, of a hundred.
		commit(5)
		pass(2 * time.Second)
		for range 100 {
			s.send(s.post("x")).want(t, http.StatusAccepted)
		}
		for i := range 12 {
			commit(int64(5 + 2*i))
			pass(time.Second)
		}
		a := s.send(s.post("x")).want(t, http.StatusTooManyRequests)
		// 78 of them at two a second are 39 s, and 10 of those may be waited.
		if n, _ := strconv.Atoi(a.Header.Get("Retry-After")); n < 25 || n > 35 {
			t.Errorf("Retry-After %d", n)
		}
		commit(100)
		pass(2 * time.Second)
		s.send(s.post("x")).want(t, http.StatusAccepted)
		// The broker does not say: nobody is turned away on what it said once.
		commit(5)
		pass(12 * time.Second)
		s.cut()
		pass(time.Minute)
		if refusal := route.admission.refusal(); refusal != nil {
			t.Errorf("%+v", refusal)
		}
	})
}

// The repeat of a request that is queued gets its stream, though no more are taken.
func TestAdmitTakesRepeats(t *testing.T) {
	route := &Handler{Admit: caddyDuration(10 * time.Second)}
	keyed(t, route, func(t *testing.T, s *storefront) {
		other := s.sibling(sideDoor)
		first := s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, false)
		dead := s.deadClaim("milk", "dead")
		for _, full := range []*Handler{route, other.route} {
			full.admission = &admission{limit: 10 * time.Second}
			full.admission.drain.Store(int64(time.Minute))
		}
		s.send(s.post("tea")).want(t, http.StatusTooManyRequests)
		s.send(s.post("tea", "Idempotency-Key", "new")).want(t, http.StatusTooManyRequests, "Nothing was queued")
		s.send(at(sideDoor, s.post("tea", "Idempotency-Key", "new"))).want(t, http.StatusTooManyRequests)
		for _, repeat := range []*http.Request{s.post("tea", "Idempotency-Key", "k"), at(sideDoor, s.post("tea", "Idempotency-Key", "k"))} {
			if again := s.send(repeat).want202(t, true); again.ID != first.ID {
				t.Errorf("stream %s, want %s", again.ID, first.ID)
			}
		}
		s.send(s.post("coffee", "Idempotency-Key", "k")).want(t, http.StatusUnprocessableEntity)
		if all := s.stored(testTopic); len(all) != 1 {
			t.Errorf("%d records, want 1", len(all))
		}
		// One that may be queued is a repeat too.
		pass(s.app.settings.produceTimeout)
		if got := s.send(s.post("milk", "Idempotency-Key", "dead")).want202(t, false); got.ID != dead {
			t.Errorf("stream %s, want %s", got.ID, dead)
		}
		s.cut()
		s.send(s.post("tea", "Idempotency-Key", "k")).want202(t, true)
		s.send(s.post("tea", "Idempotency-Key", "new")).want(t, http.StatusServiceUnavailable, "could not learn")
		s.send(s.post("tea")).want(t, http.StatusTooManyRequests)
	})
}

// begin delivers the route's topic as one member of its group.
func (s *storefront) begin(concurrency int) *delivery {
	o := deliver.Options{
		Handler: uneven{}, Attempts: 10, BackoffMin: 5 * time.Second, BackoffMax: time.Minute,
		Timeout: time.Hour, Concurrency: concurrency, MaxResponse: 1 << 20,
	}
	d := &delivery{Delivery: deliver.New(deliver.Config{
		Broker: s.app.inside.client, Producer: s.app.repliesTo(s.app.inside), Topic: s.route.Topic, Group: s.route.Group,
	}, o)}
	d.apply = d.Use
	d.use(s.app, o)
	return d
}

// A request that fails again and again, and those that take long, hold up neither
// those that come after nor the route: also if a scaler has more of them run at
// once than the configuration says, and if another member of the group has some.
func TestAdmitBesideSlowRequests(t *testing.T) {
	for name, test := range map[string]struct{ members, configured, scaled, long int }{
		"configured": {1, 4, 0, 1}, "scaled": {1, 2, 8, 7}, "two members": {2, 4, 0, 6}, "two, scaled": {2, 1, 4, 6},
	} {
		t.Run(name, func(t *testing.T) {
			route := &Handler{Topic: "slow", Key: "{http.request.header.Customer}", Admit: caddyDuration(3 * time.Second), Deliver: &Deliver{}}
			queueing(t, route, func(t *testing.T, s *storefront) {
				if err := s.cluster.CreateTopic(route.Topic, int32(test.members), nil); err != nil {
					t.Fatal(err)
				}
				for range test.members {
					d := s.begin(test.configured)
					defer d.Close()
					if test.scaled > 0 {
						d.SetConcurrency(test.scaled)
					}
					route.admission.delivery = d
				}
				ctx, cancel := context.WithCancel(t.Context())
				var working sync.WaitGroup
				defer working.Wait()
				defer cancel()
				pass(15 * time.Second)
				working.Go(func() { route.admission.run(ctx, s.app.inside.client, s.app.logger) })
				s.send(s.post("fail")).want(t, http.StatusAccepted)
				given := make([]int, test.members) // by partition, as evenly as can be
				for n, customer := 0, 'a'; n < test.long; customer++ {
					if p := record.Partition([]byte(string(customer)), int32(test.members)); given[p] <= n/test.members {
						s.send(s.post("long", "Customer", string(customer))).want(t, http.StatusAccepted)
						given[p]++
						n++
					}
				}
				for range 60 {
					pass(time.Second)
					s.send(s.post("x")).want(t, http.StatusAccepted)
				}
			})
		})
	}
}

// Where the members of the group are not known nobody is turned away, and a worker
// that is no gateway has one request at least.
func TestAdmitCountsMembers(t *testing.T) {
	route := &Handler{Topic: "slow", Admit: caddyDuration(10 * time.Second)}
	queueing(t, route, func(t *testing.T, s *storefront) {
		if err := s.cluster.CreateTopic(route.Topic, 2, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			defer s.begin(1).Close()
		}
		pass(15 * time.Second)
		for range 3 {
			s.send(s.post("long")).want(t, http.StatusAccepted)
		}
		pass(5 * time.Second)
		backlog := func() string {
			sample, err := route.admission.look(t.Context(), s.app.inside.client)
			return fmt.Sprint(sample.backlog, " ", err != nil)
		}
		if got := backlog(); got != "1 false" {
			t.Errorf("%s, want one of three beside two members", got)
		}
		s.cluster.ControlKey(int16(kmsg.DescribeGroups), func(r kmsg.Request) (kmsg.Response, error, bool) {
			s.cluster.KeepControl()
			answer := r.ResponseKind().(*kmsg.DescribeGroupsResponse)
			answer.Groups = []kmsg.DescribeGroupsResponseGroup{{Group: testTopic, ErrorCode: int16(kafka.GroupAuthorizationFailed)}}
			return answer, nil, true
		})
		if got := backlog(); got != "0 true" {
			t.Errorf("%s, want an error", got)
		}
	})
}

// uneven fails what asks for it, and takes long where that is asked for.
type uneven struct{}

func (uneven) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		return err
	case string(body) == "fail":
		w.WriteHeader(http.StatusBadGateway)
	case string(body) == "long":
		w.WriteHeader(http.StatusOK) // an upstream that is silent would lose its place
		<-r.Context().Done()
	}
	return nil
}
