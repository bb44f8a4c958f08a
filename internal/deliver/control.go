package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Cancellation is the value of a record on the control topic: a client has
// called its request off. All who deliver read that topic.
type Cancellation struct {
	// Cancel is the stream id.
	Cancel string `json:"cancel,omitempty"`
	// Expires is when the request would have expired, and the cancellation can
	// be forgotten, in milliseconds since 1970.
	Expires int64 `json:"expires,omitempty"`
}

// Record makes the record of a cancellation.
func (c Cancellation) Record() record.Record {
	value, err := json.Marshal(c)
	if err != nil {
		panic(err) // a text and a number
	}
	return record.Record{Key: []byte(c.Cancel), Value: value}
}

// message is the value of any record on the control topic. Besides cancellations
// there are, of tries that were handed over: a sign of life of a run, the
// declaration that a run is dead, and how a try stands or has ended.
type message struct {
	Cancellation

	// Run has signed for the Sign-th time.
	Run  string `json:"run,omitempty"`
	Sign int64  `json:"sign,omitempty"`

	// Dead is a run of which nothing was heard after its Sign-th.
	Dead string `json:"dead,omitempty"`

	// State is that of the try of Run with the number Try, of the record at
	// Offset. The rest is what is known of the record if it failed.
	State     outcomeState `json:"state,omitempty"`
	Topic     string       `json:"topic,omitempty"`
	Group     string       `json:"group,omitempty"`
	Life      uint32       `json:"life,omitempty"` // the topic's incarnation
	Partition int32        `json:"partition,omitempty"`
	Offset    int64        `json:"offset,omitempty"`
	Try       int          `json:"try,omitempty"`
	Stream    string       `json:"stream,omitempty"`
	Failed    int          `json:"failed,omitempty"`
	Cuts      int          `json:"cuts,omitempty"`
	Started   bool         `json:"started,omitempty"`
	GivenUp   bool         `json:"given_up,omitempty"`
	Due       int64        `json:"due,omitempty"`
	Code      int          `json:"code,omitempty"`
	Reason    string       `json:"reason,omitempty"`
}

// outcomeState is how a try stands that was handed over.
type outcomeState string

const (
	outcomeStarted outcomeState = "started" // its answer begins to go out
	outcomeDone    outcomeState = "done"
	outcomeFailed  outcomeState = "failed" // or was cut short
)

// outcome is how a try stands that was handed over.
type outcome struct {
	life   uint32 // the incarnation of the topic
	offset int64
	by     run
	try    int
	state  outcomeState
	past   past   // of the record, after a try that failed
	id     string // of the stream
}

func (d *Delivery) outcomeMessage(partition int32, o outcome) message {
	return message{
		Run: o.by.String(), State: o.state, Topic: d.config.Topic, Group: d.config.Group, Life: o.life, Partition: partition, Offset: o.offset, Try: o.try, Stream: o.id,
		Failed: o.past.failed, Cuts: o.past.cuts, Started: o.past.started, GivenUp: o.past.givenUp, Due: o.past.due, Code: o.past.code, Reason: o.past.reason,
	}
}

// outcomeOf reads an outcome that is about this topic and group.
func (d *Delivery) outcomeOf(m message) (partition int32, o outcome, ok bool) {
	if m.Topic != d.config.Topic || m.Group != d.config.Group {
		return 0, outcome{}, false
	}
	by, ok := parseRun(m.Run)
	if m.State != outcomeStarted && m.State != outcomeDone && m.State != outcomeFailed || len(m.Stream) > maxIDLength ||
		m.Failed < 0 || m.Failed > maxFailed || m.Cuts < 0 || m.Cuts > maxCuts || m.Due < 0 || m.Due > maxNumber || m.Code < 0 || m.Code > maxCode {
		return 0, outcome{}, false
	}
	if len(m.Reason) > maxReason {
		m.Reason = m.Reason[:maxReason]
	}
	return m.Partition, outcome{life: m.Life, offset: m.Offset, by: by, try: m.Try, state: m.State, id: m.Stream, past: past{
		failed: m.Failed, cuts: m.Cuts, started: m.Started, givenUp: m.GivenUp, due: m.Due, code: m.Code, reason: m.Reason,
	}}, ok
}

// tell produces a message on the control topic.
func (d *Delivery) tell(ctx context.Context, m message) error {
	ctx, cancel := context.WithTimeout(ctx, replyTimeout)
	defer cancel()
	value, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	key := m.Run
	if key == "" {
		key = m.Dead
	}
	return d.config.Producer.Produce(ctx, d.config.Control, 0, record.Record{Key: []byte(key), Value: value})
}

const (
	// maxCancellations bounds those that are remembered. Whoever cancels more
	// within the time that requests live finds the last of them delivered.
	maxCancellations = 100_000
	// maxIDLength is more than any stream id has.
	maxIDLength = 256
	// controlWait is how long the first try waits for the control topic to be
	// read. Cancelling is best effort, and a topic that cannot be read must not
	// hold up those that can.
	controlWait = 5 * time.Second
)

// control is what is known of the control topic.
type control struct {
	// read is closed when it was read up to its end, or is not there.
	read     chan struct{}
	readOnce sync.Once
	// wanted holds a word that there is something to read now.
	wanted chan struct{}

	// there says that the topic could be read when it was last asked for.
	there atomic.Bool

	mu sync.Mutex
	// cancelled are the requests that are called off, with when to forget them.
	cancelled map[string]time.Time
	// running are the tries to call off when that comes.
	running map[string]*func()
}

func newControl() *control {
	return &control{read: make(chan struct{}), wanted: make(chan struct{}, 1), cancelled: make(map[string]time.Time), running: make(map[string]*func())}
}

// has tells whether a request was called off.
func (c *control) has(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.cancelled[id]
	return ok
}

// underWay has a try called off when its request is, until the function that it
// gives is called.
func (c *control) underWay(id string, callOff func()) (ended func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.cancelled[id]; ok {
		callOff()
	}
	own := &callOff
	c.running[id] = own
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[id] == own { // a handler that does not end may end after its successor has begun
			delete(c.running, id)
		}
	}
}

// take takes a cancellation, and gives the request that is called off, "" for none.
func (c *control) take(said Cancellation, now time.Time) string {
	if said.Cancel == "" || len(said.Cancel) > maxIDLength {
		return ""
	}
	expires := time.UnixMilli(said.Expires)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !expires.After(now) {
		return ""
	}
	if len(c.cancelled) >= maxCancellations {
		for id, at := range c.cancelled {
			if !at.After(now) {
				delete(c.cancelled, id)
			}
		}
		if len(c.cancelled) >= maxCancellations {
			return ""
		}
	}
	c.cancelled[said.Cancel] = expires
	if callOff, ok := c.running[said.Cancel]; ok {
		(*callOff)()
	}
	return said.Cancel
}

// await waits until the control topic has been read, but not for long.
func (c *control) await(ctx context.Context) {
	timer := time.NewTimer(controlWait)
	defer timer.Stop()
	select {
	case <-c.read:
	case <-ctx.Done():
	case <-timer.C:
	}
}

// isThere reports whether the control topic is there, as far as is known.
func (c *control) isThere() bool { return c.there.Load() }

func (c *control) ready() { c.readOnce.Do(func() { close(c.read) }) }

// follow reads the control topic from its start, for as long as there is
// something to deliver. It has one partition; if somebody gave it more, they are
// not read.
func (d *Delivery) follow(ctx context.Context) {
	var (
		pause backoff.Backoff
		life  broker.TopicID
		next  int64
	)
	for ctx.Err() == nil {
		topic, err := d.config.Broker.Topic(ctx, d.config.Control)
		if err == nil && topic.Leaders[0] < 0 {
			err = kafka.LeaderNotAvailable
		}
		if err == nil {
			if topic.ID != life {
				life, next = topic.ID, 0
			}
			next, err = d.followFrom(ctx, topic, next, &pause)
		}
		if errors.Is(err, kafka.UnknownTopicOrPartition) {
			d.control.there.Store(false)
			d.control.ready() // nobody has ever cancelled anything
		}
		if ctx.Err() == nil && pause.Failures() == 1 {
			d.log.Debug("control topic not read", zap.String("topic", d.config.Control), zap.Error(err))
		}
		timer := time.NewTimer(pause.Next())
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-d.control.wanted:
			pause.Reset()
		}
		timer.Stop()
	}
}

// followFrom reads from one leader until that fails, and gives where to go on.
func (d *Delivery) followFrom(ctx context.Context, topic broker.Topic, next int64, pause *backoff.Backoff) (int64, error) {
	for {
		got, err := d.config.Broker.Fetch(ctx, broker.FetchRequest{
			Leader: topic.Leaders[0], MaxWait: fetchWait, MaxBytes: fetchBytes,
			From: []broker.FetchFrom{{Topic: topic.Name, ID: topic.ID, Offset: next}},
		})
		if err != nil {
			return next, err
		}
		if len(got) == 0 {
			return next, errors.New("no answer for the partition")
		}
		f := got[0]
		switch {
		case errors.Is(f.Err, kafka.OffsetOutOfRange):
			first, _, err := d.bounds(ctx, topic, 0)
			if err != nil {
				return next, err
			}
			return first, f.Err // what was there is past
		case f.Err != nil && !errors.Is(f.Err, broker.ErrBatchTooLarge):
			return next, f.Err
		}
		pause.Reset()
		d.control.there.Store(true)
		for _, r := range f.Records {
			d.heed(r.Value)
		}
		if next = f.Next; next >= f.Stable {
			d.control.ready()
		}
	}
}

// heed takes a record of the control topic. What cannot be read was written by a
// stranger, or by a newer version about something else.
func (d *Delivery) heed(value []byte) {
	var m message
	if json.Unmarshal(value, &m) != nil {
		return
	}
	if m.Cancel == "" {
		d.handovers.take(m)
		return
	}
	if id := d.control.take(m.Cancellation, time.Now()); id != "" {
		d.queue.unpark(id)
	}
}
