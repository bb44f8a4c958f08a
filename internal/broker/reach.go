package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/segmentio/kafka-go"
)

// ErrNoHandshake says that what listens at an address takes connections and
// does not answer Kafka's first request: a server that waits for more of a
// request of its own protocol, or a broker that hangs.
var ErrNoHandshake = errors.New("the other side takes connections and does not answer Kafka's handshake; check that it is a Kafka broker, and the listener's port")

// reach is what stands between the client and the cluster, as far as the
// connections have told. The Transport tells its callers only that their time
// is over while it dials.
type reach struct {
	mu  sync.Mutex
	err error
}

func (r *reach) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// explain adds to the error of a request that was not sent what is known of why.
func (r *reach) explain(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var code kafka.Error
	switch {
	case errors.As(err, &code):
		return refusedLogin(err, code)
	case r.err == nil || errors.Is(err, r.err) || !errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", r.err, err)
}

// refusedLogin says what to do where the broker refused to let the client in.
func refusedLogin(err error, code kafka.Error) error {
	switch code {
	case kafka.SASLAuthenticationFailed:
		return fmt.Errorf("the broker refused the login; check sasl's user and password, and that the user has credentials for this mechanism: %w", err)
	case kafka.UnsupportedSASLMechanism:
		return fmt.Errorf("the broker does not offer this mechanism; choose another one for sasl: %w", err)
	case kafka.IllegalSASLState:
		return fmt.Errorf("this listener takes no login; leave sasl out, or use the port of a listener with SASL: %w", err)
	}
	return err
}
