package world

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

const (
	replyTopic   = "osmosis.replies"
	controlTopic = "osmosis.control"
)

// gateway is what the root package makes of one process.
type gateway struct {
	w    *world
	name string
	net  *network
	log  *zap.Logger

	client   *broker.Client
	producer *ingress.Producer
	book     *claims.Book
	hub      *hub.Hub
	began    time.Duration
	requests sync.WaitGroup // which hold the inside, as a lease does
	closing  sync.WaitGroup // deliveries whose tries end, which hold it too

	// leaving is closed when streams are told to come back.
	leaving chan struct{}

	mu       sync.Mutex
	delivery *deliver.Delivery // nil while no route has one
	options  deliver.Options
}

// newGateway starts a process.
func newGateway(w *world) *gateway {
	w.mu.Lock()
	number := w.started
	w.started++
	w.mu.Unlock()
	g := &gateway{
		w: w, name: "g" + strconv.Itoa(number), net: newNetwork(&w.wires, w.plan.seed<<8+uint64(number)),
		began: w.history.now(), leaving: make(chan struct{}), options: w.plan.options,
	}
	g.log = w.logger(g.name)
	g.client = broker.New(broker.Config{Addresses: w.addresses, Dial: g.net.dial})
	g.producer = ingress.New(ingress.Config{Broker: g.client, Logger: g.log.Named("ingress")})
	g.book = claims.New(claims.Config{Broker: g.client, Produce: g.produceClaims, Logger: g.log.Named("claims")})
	g.hub = hub.New(hub.Config{
		Broker: g.client, Topic: replyTopic, Create: true, Spec: broker.TopicSpec{Partitions: int(w.plan.replies)},
		Logger: g.log.Named("hub"),
	})
	g.hub.Start()
	g.book.Start(broker.TopicSpec{Name: claims.Topic, Partitions: 2}, true)
	g.route()
	return g
}

// route begins to deliver.
func (g *gateway) route() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.delivery != nil {
		return // another reload has brought it back
	}
	g.options.Handler = &site{g: g, options: g.options}
	g.delivery = deliver.New(deliver.Config{
		Broker: g.client, Producer: replies{g.producer}, Topic: orders, Group: orders, Control: controlTopic,
		Logger: g.log.Named("deliver"),
	}, g.options)
}

// unroute ends that, as a reload does which removes the route.
func (g *gateway) unroute() {
	g.mu.Lock()
	d := g.delivery
	g.delivery = nil
	g.mu.Unlock()
	if d != nil {
		g.closing.Go(d.Close)
	}
}

// reload changes the options of the delivery.
func (g *gateway) reload(o deliver.Options, concurrency int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o.Handler = &site{g: g, options: o}
	g.options = o
	if g.delivery != nil {
		g.delivery.Use(o)
		g.delivery.SetConcurrency(concurrency)
	}
}

// stop ends the process in an orderly way. It has been taken off the list of
// those that get requests.
func (g *gateway) stop() {
	close(g.leaving)
	g.unroute()
	g.closing.Wait()
	g.requests.Wait()
	g.hub.Close()
	g.book.Close()
	g.producer.Close()
	g.client.Close()
}

// kill ends the process as SIGKILL does. What Go leaves running of it changes
// nothing any more; it is wound up in the background.
func (g *gateway) kill() {
	g.net.kill()
	g.w.history.killed(g)
	g.w.background.Go(g.stop)
}

// accept queues a request, as Handler.ServeHTTP does in the root package. The
// claims it fills in are those of the stream.
func (g *gateway) accept(within context.Context, w *work, c *hub.Claims) (replayed, noted bool, err error) {
	if w.once != "" {
		within = context.WithoutCancel(within)
	}
	ctx, cancel := context.WithTimeout(within, g.w.plan.produceTimeout)
	defer cancel()
	if err := g.newStream(ctx, w, c); err != nil {
		return false, false, err
	}
	if w.once != "" {
		return g.acceptOnce(ctx, within, w, c)
	}
	rec, err := g.record(w, c)
	if err != nil {
		return false, false, err
	}
	return false, false, g.produce(ctx, within, ingress.Request{Topic: w.topic, Record: rec}, c)
}

// newStream is Handler.newStream.
func (g *gateway) newStream(ctx context.Context, w *work, c *hub.Claims) error {
	place, err := g.hub.Place(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	*c = hub.Claims{
		ID: record.NewID(place.Partition, place.Partitions), Scheme: "https", Host: "example.com",
		Topic: w.topic, Group: w.topic,
		ReplyTopic: place.Topic, ReplyPartition: place.Partition, ReplyPartitions: place.Partitions,
		Floor: place.Floor, ReplyIncarnation: place.Incarnation,
		Issued: now, Expires: now.Add(w.ttl),
	}
	return c.Check()
}

// record is Handler.record.
func (g *gateway) record(w *work, c *hub.Claims) (record.Record, error) {
	r, err := http.NewRequest(http.MethodPost, "https://example.com/"+w.topic, nil)
	if err != nil {
		return record.Record{}, err
	}
	rec, err := record.FromHTTP(r, []byte(strconv.Itoa(w.n)), record.Meta{
		StreamID: c.ID, Source: "https://example.com", Type: "osmosis.request", Time: c.Issued, Scheme: c.Scheme, ClientIP: "203.0.113.7",
		ReplyTopic: c.ReplyTopic, ReplyPartition: c.ReplyPartition, Expires: c.Expires,
	})
	if w.key != "" {
		rec.Key = []byte(w.key)
	}
	return rec, err
}

// produce is Handler.produce with produceWithin.
func (g *gateway) produce(ctx, within context.Context, r ingress.Request, c *hub.Claims) error {
	ack, err := g.produceWithin(ctx, within, r)
	if err == nil {
		c.Partition, c.Offset, c.Incarnation = ack.Partition, ack.Offset, ack.Incarnation
	}
	return err
}

func (g *gateway) produceWithin(ctx, within context.Context, r ingress.Request) (ingress.Ack, error) {
	deadline, _ := ctx.Deadline()
	if r.Timeout = time.Until(deadline); r.Timeout <= 0 {
		return ingress.Ack{}, fmt.Errorf("%w: its time had passed before it was sent", ingress.ErrUnavailable)
	}
	if err := g.net.pass(); err != nil {
		return ingress.Ack{}, err
	}
	return g.producer.Produce(within, r)
}

// acceptOnce is Handler.queueOnce. It tells besides whether the request was noted.
func (g *gateway) acceptOnce(ctx, within context.Context, w *work, c *hub.Claims) (replayed, noted bool, err error) {
	verdict, err := g.book.Claim(ctx, claims.Claim{
		Marks: []claims.Mark{{Key: mark(w.topic, w.once), Body: mark(w.topic, strconv.Itoa(w.n))}}, Place: []byte(w.once),
		Stream: claims.Stream{
			ID: c.ID, Topic: c.ReplyTopic, Partition: c.ReplyPartition, Partitions: c.ReplyPartitions,
			Floor: c.Floor, Incarnation: c.ReplyIncarnation, Issued: c.Issued, Expires: c.Expires,
		},
		Until: c.Issued.Add(longTTL),
	})
	if err != nil {
		return false, false, err
	}
	turn := verdict.Turn
	if verdict.Stream.ID != c.ID {
		s := verdict.Stream
		c.ID, c.ReplyTopic, c.ReplyPartition, c.ReplyPartitions = s.ID, s.Topic, s.Partition, s.Partitions
		c.Floor, c.ReplyIncarnation, c.Issued, c.Expires = s.Floor, s.Incarnation, s.Issued, s.Expires
	}
	if turn == nil {
		at := verdict.Request
		c.Partition, c.Offset, c.Incarnation = at.Partition, at.Offset, at.Incarnation
		return true, false, nil
	}
	rec, err := g.record(w, c)
	if err == nil {
		request := ingress.Request{Topic: w.topic, Record: rec}
		if rec.Key == nil {
			request.PlaceBy = []byte(c.ID)
		}
		err = g.produce(ctx, within, request, c)
	}
	// This is Handler.endTurn.
	var unsettled error
	switch {
	case err == nil:
		unsettled = turn.Note(ctx, claims.Position{Partition: c.Partition, Offset: c.Offset, Incarnation: c.Incarnation})
	case !errors.Is(err, ingress.ErrUnclear):
		unsettled = turn.Revoke(ctx)
	}
	if unsettled != nil {
		g.log.Info("claim not settled", zap.String("stream", c.ID), zap.Error(unsettled))
	}
	return false, err == nil && unsettled == nil, err
}

func mark(texts ...string) (m [16]byte) {
	copy(m[:], strings.Join(texts, "/"))
	return m
}

// produceClaims is the root package's.
func (g *gateway) produceClaims(ctx context.Context, placeBy []byte, rec record.Record) (claims.Position, error) {
	ack, err := g.produceWithin(ctx, ctx, ingress.Request{Topic: claims.Topic, Record: rec, PlaceBy: placeBy})
	if err != nil {
		return claims.Position{}, errors.New(err.Error())
	}
	return claims.Position{Partition: ack.Partition, Offset: ack.Offset, Incarnation: ack.Incarnation}, nil
}

// callOff is App.callOff.
func (g *gateway) callOff(ctx context.Context, c hub.Claims) error {
	ctx, cancel := context.WithTimeout(ctx, g.w.plan.produceTimeout)
	defer cancel()
	put := func(topic string, r record.Record) error {
		_, err := g.produceWithin(ctx, ctx, ingress.Request{Topic: topic, Record: r})
		return err
	}
	if err := put(controlTopic, deliver.Cancellation{Cancel: c.ID, Expires: c.Expires.UnixMilli()}.Record()); err != nil {
		return fmt.Errorf("tell those who deliver: %w", err)
	}
	end := record.Request{StreamID: c.ID}.Report(record.Status{Status: record.StateCancelled, Reason: "called off by its client"})
	if err := put(c.ReplyTopic, end.Record()); err != nil {
		return fmt.Errorf("end the stream: %w", err)
	}
	return nil
}

// replies is the root package's, without making topics.
type replies struct{ producer *ingress.Producer }

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
	if request.Partition != nil && errors.Is(err, ingress.ErrRefused) && errors.Is(err, kafka.UnknownTopicOrPartition) {
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

// streamOf is the root package's.
func streamOf(c *hub.Claims) hub.Stream {
	return hub.Stream{
		ID: c.ID, Topic: c.ReplyTopic, Partition: c.ReplyPartition, Partitions: c.ReplyPartitions,
		Floor: c.Floor, Incarnation: c.ReplyIncarnation, Issued: c.Issued, Expires: c.Expires,
	}
}
