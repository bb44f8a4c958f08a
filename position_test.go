package osmosis

import (
	"net/http"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
)

// A request's position counts those before it that wait or are under way, and not
// those that deliver has done out of order.
func TestPositionBesideLongRequests(t *testing.T) {
	queueing(t, &Handler{Deliver: &Deliver{}}, func(t *testing.T, s *storefront) {
		d := deliver.New(deliver.Config{
			Broker: s.app.inside.client, Producer: s.app.repliesTo(s.app.inside), Topic: testTopic, Group: testTopic,
		}, deliver.Options{Handler: uneven{}, Attempts: 1, Timeout: time.Hour, Concurrency: 2, MaxResponse: 1 << 20})
		defer d.Close()
		for _, body := range []string{"long", "x", "x", "x", "x"} {
			s.send(s.post(body)).want(t, http.StatusAccepted)
			pass(5 * time.Second)
		}
		s.send(s.post("long")).want(t, http.StatusAccepted)
		waits := s.send(s.post("x")).want(t, http.StatusAccepted).Header.Get("Location")
		pass(5 * time.Second)
		if got := s.get(waits).document(t); got.Position == nil || *got.Position != 2 {
			t.Errorf("position %+v, want 2: those that take long", got)
		}
	})
}
