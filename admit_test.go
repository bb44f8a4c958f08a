package osmosis

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
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

// A request that fails again and again, and one that takes long, hold up neither
// those that come after nor the route.
func TestAdmitBesideSlowRequests(t *testing.T) {
	route := &Handler{Admit: caddyDuration(10 * time.Second), Deliver: &Deliver{Concurrency: 4}}
	queueing(t, route, func(t *testing.T, s *storefront) {
		d := deliver.New(deliver.Config{
			Broker: s.app.inside.client, Producer: s.app.repliesTo(s.app.inside), Topic: testTopic, Group: testTopic,
		}, deliver.Options{
			Handler: uneven{}, Attempts: 10, BackoffMin: 5 * time.Second, BackoffMax: time.Minute,
			Timeout: time.Hour, Concurrency: 4, MaxResponse: 1 << 20,
		})
		defer d.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var working sync.WaitGroup
		defer working.Wait()
		defer cancel()
		working.Go(func() { route.admission.run(ctx, s.app.inside.client, s.app.logger) })
		for _, body := range []string{"fail", "long"} {
			s.send(s.post(body)).want(t, http.StatusAccepted)
		}
		for range 60 {
			pass(time.Second)
			s.send(s.post("x")).want(t, http.StatusAccepted)
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
		<-r.Context().Done()
	}
	return nil
}
