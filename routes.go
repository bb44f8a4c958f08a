package osmosis

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
)

// routes is what the app knows of the routes that use it; they tell it while
// they are provisioned.
type routes struct {
	mu         sync.Mutex
	topics     []string
	cors       map[string][]string // topic → origins of all routes to it
	window     time.Duration       // the longest for idempotency keys
	scale      []*Scale
	admissions []*admission
	deliveries []*Deliver
}

// addRoute notes what a route needs of the app: its topic, its origins for the
// streams it makes, and its workers.
func (a *App) addRoute(h *Handler) error {
	a.routes.mu.Lock()
	defer a.routes.mu.Unlock()
	if h.Scale != nil {
		if err := h.Scale.once(slices.Concat(a.Scale, a.routes.scale)); err != nil {
			return err
		}
		a.routes.scale = append(a.routes.scale, h.Scale)
	}
	a.routes.topics = append(a.routes.topics, h.Topic)
	a.routes.window = max(a.routes.window, time.Duration(h.Idempotency))
	if a.routes.cors == nil {
		a.routes.cors = make(map[string][]string)
	}
	a.routes.cors[h.Topic] = append(a.routes.cors[h.Topic], h.CORS...)
	if h.admission != nil {
		a.routes.admissions = append(a.routes.admissions, h.admission)
	}
	return nil
}

// reserved says why a topic cannot be one of requests: the gateway would take its
// own records for somebody's requests, or requests for its own records.
func (a *App) reserved(topic string) error {
	if topic == a.plan.hub.Topic {
		return fmt.Errorf("topic %s is where the replies go; choose another for requests, or another with `replies <topic>`", topic)
	}
	return gatewaysOwn(topic)
}

// presenceTopic is kept for what gateways will tell each other of who listens.
const presenceTopic = "osmosis.presence"

// gatewaysOwn says why a topic cannot be one of requests or of replies.
func gatewaysOwn(topic string) error {
	switch topic {
	case claims.Topic, controlTopic, autoscale.LeaseTopic, presenceTopic:
		return fmt.Errorf("topic %s is the gateway's own; choose another", topic)
	}
	return nil
}

// corsFor gives the origins whose pages may read streams of a topic's requests.
func (a *App) corsFor(topic string) []string {
	a.routes.mu.Lock()
	defer a.routes.mu.Unlock()
	return a.routes.cors[topic]
}

// longestWindow gives the longest window of the routes, 0 without routes.
func (a *App) longestWindow() time.Duration {
	a.routes.mu.Lock()
	defer a.routes.mu.Unlock()
	return a.routes.window
}
