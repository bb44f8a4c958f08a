package osmosis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// deliveries are the memberships in groups that deliver, by broker, topic and
// group. They outlive a configuration, or each reload would be a rebalance; what
// a configuration says of them is changed in place.
var deliveries = caddy.NewUsagePool()

// delivery is one of them.
type delivery struct {
	*deliver.Delivery
	said[deliver.Options]
	insideKey string
	scaled    atomic.Int64 // how many tries a scaler has run at once, 0 for no word
}

// closing are the deliveries that no configuration has any more and that have tries
// left to end. They hold on to what they need, the embedded broker too.
var closing sync.WaitGroup

// Destruct leaves the group. That goes on in the background: a reload need not wait
// for the tries that run.
func (d *delivery) Destruct() error {
	closing.Go(func() {
		d.Close()
		leaveInside(d.insideKey)
	})
	return nil
}

// concurrency is how many tries run at once by what the last configuration says,
// where no scaler has a word in it.
func (d *delivery) concurrency() int {
	o, _ := d.holds()
	return o.Concurrency
}

// SetConcurrency has so many tries run at once, and with 0 as many as the last
// configuration says.
func (d *delivery) SetConcurrency(n int) {
	d.scaled.Store(int64(n))
	d.Delivery.SetConcurrency(n)
}

// current is how many tries run at once now.
func (d *delivery) current() int {
	if n := d.scaled.Load(); n > 0 {
		return int(n)
	}
	return d.concurrency()
}

// addDelivery notes what a route has delivered.
func (a *App) addDelivery(d *Deliver) error {
	a.routes.mu.Lock()
	defer a.routes.mu.Unlock()
	for _, topic := range []string{d.topic, d.deadLetter()} {
		if err := a.reserved(topic); err != nil {
			return fmt.Errorf("deliver: %w", err)
		}
	}
	for _, other := range a.routes.deliveries {
		if other.topic == d.topic && other.Group == d.Group {
			return fmt.Errorf("topic %s is delivered twice in the group %s: a request would be answered by either; give one of the routes another topic, or one deliver another group", d.topic, d.Group)
		}
	}
	a.routes.deliveries = append(a.routes.deliveries, d)
	a.routes.topics = append(a.routes.topics, d.topic)
	return nil
}

// startDeliveries joins the groups, or goes on with what the configuration
// before has joined.
func (a *App) startDeliveries() error {
	a.routes.mu.Lock()
	defer a.routes.mu.Unlock()
	a.deliveries = make(map[string]*delivery)
	for _, d := range a.routes.deliveries {
		key := a.deliveryKey(d.topic, d.Group)
		value, _, err := deliveries.LoadOrNew(key, func() (caddy.Destructor, error) { return a.newDelivery(d) })
		if err != nil {
			return fmt.Errorf("deliver %s: %w", d.topic, err)
		}
		a.deliveries[key] = value.(*delivery)
		a.deliveries[key].use(a, d.options())
	}
	return nil
}

// deliveryKey is where the pool holds what delivers a topic in a group.
func (a *App) deliveryKey(topic, group string) string {
	return fingerprint(a.plan.insideKey, topic, group)
}

func (a *App) newDelivery(d *Deliver) (*delivery, error) {
	value, _, err := insides.LoadOrNew(a.plan.insideKey, func() (caddy.Destructor, error) { return nil, errStopped })
	if err != nil {
		return nil, err
	}
	i := value.(*inside)
	delivers := deliver.New(deliver.Config{
		Broker: i.client, Producer: a.repliesTo(i), Topic: d.topic, Group: d.Group, Control: controlTopic,
		Logger: a.logger.Named("deliver"),
	}, d.options())
	return &delivery{Delivery: delivers, said: said[deliver.Options]{apply: delivers.Use}, insideKey: a.plan.insideKey}, nil
}

// stopDeliveries lets go of them.
func (a *App) stopDeliveries() error {
	var errs []error
	for key, d := range a.deliveries {
		d.leave(a)
		_, err := deliveries.Delete(key)
		errs = append(errs, err)
	}
	a.deliveries = nil
	return errors.Join(errs...)
}

// replies puts replies, dead letters and control records on their topics. Those that are missing
// are made as the configuration has it that the delivery began with.
type replies struct {
	producer *ingress.Producer
	ensure   func(ctx context.Context, topic string, rec record.Record) error
}

func (a *App) repliesTo(i *inside) replies {
	return replies{i.producer, func(ctx context.Context, topic string, rec record.Record) error {
		return a.ensure(ctx, i.client, a.specFor(topic, rec))
	}}
}

// Produce implements deliver.Producer.
func (r replies) Produce(ctx context.Context, topic string, partition int32, rec record.Record) error {
	request := ingress.Request{Topic: topic, Record: rec}
	if partition >= 0 {
		request.Partition = &partition
	}
	if deadline, ok := ctx.Deadline(); ok {
		request.Timeout = time.Until(deadline)
	}
	_, err := r.producer.Produce(ctx, request)
	if errors.Is(err, ingress.ErrTopicMissing) {
		if cause := r.ensure(ctx, topic, rec); cause != nil {
			return fmt.Errorf("%w: %w", err, cause)
		}
		_, err = r.producer.Produce(ctx, request)
	}
	if request.Partition != nil && errors.Is(err, ingress.ErrRefused) && errors.Is(err, kafka.UnknownTopicOrPartition) {
		// Whoever asked named a partition that the topic does not have. Nobody
		// may wait at any other, and the group's records must not wait for it.
		request.Partition = nil
		_, err = r.producer.Produce(ctx, request)
	}
	if errors.Is(err, ingress.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", deliver.ErrTooLarge, err)
	}
	if errors.Is(err, ingress.ErrRefused) {
		err = fmt.Errorf("%w: %w", deliver.ErrRefused, err)
	}
	return err
}
