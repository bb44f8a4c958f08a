package osmosis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/embedded"
	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
)

// What outlives a configuration, by a hash of the settings that it depends on
// and on nothing else: with more in the key, a changed limit would make a
// second group member and a rebalance. A configuration holds a reference on the
// hub, which its requests and open streams share, and the hub's entry holds those
// above it.
var (
	brokers   = caddy.NewUsagePool() // broker settings → *brokerEntry
	producers = caddy.NewUsagePool() // broker settings → *producerEntry
	books     = caddy.NewUsagePool() // broker settings → *bookEntry
	insides   = caddy.NewUsagePool() // broker settings, reply topic, group → *inside
)

// brokerEntry is a connection to Kafka, and the embedded broker behind it if
// that is what it connects to.
type brokerEntry struct {
	client    *broker.Client
	embedded  *embedded.Broker // nil: a Kafka cluster
	directory string           // the embedded broker's
}

// Destruct closes the connections, then the embedded broker.
func (b *brokerEntry) Destruct() error {
	b.client.Close()
	if b.embedded == nil {
		return nil
	}
	if err := b.embedded.Close(); err != nil {
		return fmt.Errorf("close embedded broker: %w", err)
	}
	return nil
}

// producerEntry is the process' one producer for a cluster.
type producerEntry struct{ *ingress.Producer }

// Destruct waits for what is in flight.
func (p producerEntry) Destruct() error {
	p.Close()
	return nil
}

// bookEntry is the process' one copy of the claims on a cluster.
type bookEntry struct{ *claims.Book }

// Destruct stops reading claims.
func (b bookEntry) Destruct() error {
	b.Close()
	return nil
}

// inside is all that a request needs of Kafka.
type inside struct {
	client   *broker.Client
	producer *ingress.Producer
	hub      *hub.Hub
	claims   *claims.Book
	meter    *autoscale.Meter

	needs
}

// needs are references on what pools hold.
type needs []need

// need is one of them.
type need struct {
	pool *caddy.UsagePool
	key  string
}

// take gives what a pool holds, or a new one, with a reference on it.
func (n *needs) take(pool *caddy.UsagePool, key string, construct caddy.Constructor) (any, error) {
	value, _, err := pool.LoadOrNew(key, construct)
	if err == nil {
		*n = append(*n, need{pool, key})
	}
	return value, err
}

// letGo gives the references back, the last first: each needs those before it.
func (n needs) letGo() error {
	var errs []error
	for _, need := range slices.Backward(n) {
		_, err := need.pool.Delete(need.key)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Destruct leaves the group, and lets go of what that needs.
func (i *inside) Destruct() error {
	i.hub.Close()
	return i.letGo()
}

// plan says what to take from the pools.
type plan struct {
	brokerKey string
	broker    broker.Config
	embedded  *embedded.Config // nil: a Kafka cluster

	insideKey string
	hub       hub.Config

	logger *zap.Logger
}

// acquire gives what the plan says, new or shared with another configuration,
// and one reference on it.
func (p *plan) acquire() (*inside, error) {
	value, _, err := insides.LoadOrNew(p.insideKey, func() (caddy.Destructor, error) { return p.open() })
	if err != nil {
		return nil, err
	}
	return value.(*inside), nil
}

// open makes the inside, and what it needs where that is not there.
func (p *plan) open() (*inside, error) {
	i := new(inside)
	value, err := i.take(brokers, p.brokerKey, p.connect)
	if errors.Is(err, embedded.ErrInUse) && p.usedHere() {
		return nil, errEmbeddedChanged
	}
	if err != nil {
		return nil, err
	}
	i.client = value.(*brokerEntry).client
	value, err = i.take(producers, p.brokerKey, func() (caddy.Destructor, error) {
		return producerEntry{ingress.New(ingress.Config{Broker: i.client, Logger: p.logger})}, nil
	})
	if err != nil {
		return nil, errors.Join(err, i.letGo())
	}
	i.producer = value.(producerEntry).Producer
	value, err = i.take(books, p.brokerKey, func() (caddy.Destructor, error) {
		return bookEntry{claims.New(claims.Config{Broker: i.client, Produce: produceClaims(i.producer), Logger: p.logger})}, nil
	})
	if err != nil {
		return nil, errors.Join(err, i.letGo())
	}
	i.claims = value.(bookEntry).Book
	c := p.hub
	c.Broker = i.client
	i.hub, i.meter = hub.New(c), autoscale.NewMeter(i.client.API(), deliver.DoneBelow)
	i.hub.Start()
	return i, nil
}

// errEmbeddedChanged is why a reload fails that changes the embedded broker:
// the new one would need what the old one, and every stream on it, still has.
var errEmbeddedChanged = errors.New("the embedded broker's settings cannot change while it runs: stop Caddy and start it again, or leave them as they were")

// usedHere tells whether this process itself uses the embedded broker's directory.
func (p *plan) usedHere() bool {
	used := false
	brokers.Range(func(_, value any) bool {
		entry, ok := value.(*brokerEntry)
		used = ok && entry.directory == p.embedded.Directory
		return !used
	})
	return used
}

// connect makes the client, and starts the embedded broker first where there is one.
func (p *plan) connect() (caddy.Destructor, error) {
	if p.embedded == nil {
		return &brokerEntry{client: broker.New(p.broker)}, nil
	}
	local, err := embedded.Open(*p.embedded)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: choose another address with `embedded { listen … }`, or, if what is there is the broker that you want, use it with `kafka %s`", err, p.embedded.Listen)
	}
	if err != nil {
		return nil, err
	}
	c := p.broker
	c.Addresses = []string{local.Address()}
	return &brokerEntry{client: broker.New(c), embedded: local, directory: p.embedded.Directory}, nil
}

// errStopped is what a request gets that comes when its configuration is gone.
var errStopped = errors.New("the gateway's configuration was stopped; try again")

// lease is a request's hold on the inside: while it lasts, neither a reload
// nor a stop takes the hub away from under it.
type lease struct {
	*inside
	release func()
}

// lease waits until the app has started, since Caddy starts its apps in no
// particular order and requests may come first.
func (a *App) lease(ctx context.Context) (*lease, error) {
	select {
	case <-a.started: // nearly always, and then ctx needs no timer
	default:
		select {
		case <-a.started:
		case <-a.failed:
			return nil, errStopped
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if a.shared.enter() {
		return &a.shared.lease, nil
	}
	// This configuration has let go of it, but a later one may go on with it.
	key := a.plan.insideKey
	value, _, err := insides.LoadOrNew(key, func() (caddy.Destructor, error) { return nil, errStopped })
	if err != nil {
		return nil, err
	}
	return &lease{value.(*inside), func() { leaveInside(key) }}, nil
}

// share is a configuration's reference on the inside, which its requests share:
// one of their own in the pool would take each of them through the pool's lock.
// It knows nothing of the configuration, which a stream that is left must not keep.
type share struct {
	lease
	key     string
	holders atomic.Int64 // the app from Start to Cleanup, and requests
}

// newShare begins with the app as its one holder.
func newShare(i *inside, key string) *share {
	s := &share{key: key}
	s.lease = lease{i, s.leave}
	s.holders.Store(1)
	return s
}

// enter counts one holder more, unless the last has left.
func (s *share) enter() bool {
	for n := s.holders.Load(); n > 0; n = s.holders.Load() {
		if s.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

// leave counts one less. The last one gives the reference back.
func (s *share) leave() {
	if s.holders.Add(-1) == 0 {
		leaveInside(s.key)
	}
}

// leaveInside gives a reference back. What goes wrong with that is in the log
// alone: there may be nobody else left to tell.
func leaveInside(key string) {
	if _, err := insides.Delete(key); err != nil {
		newestLog().Error("leave kafka", zap.Error(err))
	}
}
