package hub

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// ErrClosed is what a subscription gives when it or its hub was closed.
var ErrClosed = errors.New("stream closed by the gateway")

// defaultWindowBytes is how much memory all replies together take.
const defaultWindowBytes = 64 << 20

// Config says what a Hub reads. Broker and Topic are required.
type Config struct {
	// Broker reaches the cluster. The hub does not close it.
	Broker *broker.Client
	// Topic is the reply topic that new streams get. Streams of other topics,
	// whose tokens were given out before this one was configured, are read as well.
	Topic string
	// Create says to make the reply topic, by Spec, when it is missing.
	Create bool
	Spec   broker.TopicSpec
	// Group is the consumer group in which gateways share the partitions of
	// the reply topic. Default: osmosis.gateways.<topic>.
	Group string
	// WindowBytes bounds the replies in memory, over all partitions; what falls
	// out is read from the broker again. A reply counts with all that it takes,
	// also as it is sent; what was read for clients that are slow to take it
	// counts too. Default: 64 MiB.
	WindowBytes int64
	// Fingerprint says which keys seal and open the tokens of this gateway's
	// streams, and nothing of the keys: see Keyring.Fingerprint. The gateways of a
	// group compare theirs, and each says in its log if one cannot open another's
	// tokens. An empty one is not compared. SetFingerprint changes it.
	Fingerprint string
	// Logger gets what happens. Default: nothing is logged.
	Logger *zap.Logger
}

// Hub reads reply topics and gives each stream its replies.
//
// Two locks guard it. The hub's own says what is where: topics, their
// partitions, which tail reads which. A partition's says what the partition
// holds and who reads it. Where both are held the hub's was taken first, and a
// subscription's before either; under a partition's lock nothing is called that
// takes another, except for the short locks of a tail and of spawn, under which
// nothing is called at all. An entry's lock is held alone.
type Hub struct {
	config Config
	broker *broker.Client
	log    *zap.Logger

	clock       atomic.Uint64
	windowBytes atomic.Int64
	dropped     atomic.Int64
	evicting    sync.Mutex

	floors *floors
	member *home
	placer *placer

	mu     sync.Mutex
	topics map[string]*topic
	tails  map[int32]*tail
	home   map[int32]bool
	open   int // subscriptions

	life   sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup
}

// New makes a Hub. It does nothing before it is started or a stream is followed.
func New(c Config) *Hub {
	if c.WindowBytes == 0 {
		c.WindowBytes = defaultWindowBytes
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	h := &Hub{
		config: c, broker: c.Broker, log: c.Logger,
		topics: make(map[string]*topic),
		tails:  make(map[int32]*tail),
		home:   make(map[int32]bool),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	c.Spec.Name = c.Topic
	h.floors = newFloors(floorsConfig{broker: c.Broker, spec: c.Spec, create: c.Create, log: c.Logger})
	h.member = newHome(homeConfig{
		broker: c.Broker, topic: c.Topic, group: c.Group, log: c.Logger,
		floors: h.floors, positions: h.positions, onHome: h.setHome, fingerprint: c.Fingerprint,
	})
	h.placer = newPlacer(c.Topic, h.floors, h.member)
	return h
}

// Start finds or makes the reply topic and joins the gateways' group, in the
// background and for as long as it takes.
func (h *Hub) Start() {
	h.spawn(h.floors.run)
	h.spawn(h.member.run)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.topic(h.config.Topic)
}

// SetFingerprint changes Config.Fingerprint, as a reload does that brings other
// keys. If it is another one, the group's members are told of it.
func (h *Hub) SetFingerprint(fingerprint string) { h.member.setFingerprint(fingerprint) }

// Place chooses where the replies of a new stream are awaited. Until that is
// known, which takes a broker, it waits for as long as the context lets it; its
// error then wraps ErrNoFloor and says why.
func (h *Hub) Place(ctx context.Context) (Place, error) { return h.placer.place(ctx) }

// Close ends everything the hub does and waits for that. Subscriptions that are
// still open get ErrClosed.
func (h *Hub) Close() {
	h.life.Lock()
	h.cancel()
	h.life.Unlock()
	h.mu.Lock()
	for _, t := range h.topics {
		t.wake() // those that wait by Notify
	}
	h.mu.Unlock()
	h.group.Wait()
}

// spawn runs f in a goroutine that Close waits for, unless the hub is closed.
func (h *Hub) spawn(f func(context.Context)) bool {
	h.life.Lock()
	defer h.life.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.group.Go(func() { f(h.ctx) })
	return true
}

// tick advances the hub's clock, which tells an answer to an earlier question
// from an answer to a later one, even within one instant.
func (h *Hub) tick() uint64 { return h.clock.Add(1) }

// topic gives a topic, and begins to ask for it where it is new. Needs the hub's lock.
func (h *Hub) topic(name string) *topic {
	t := h.topics[name]
	if t == nil {
		t = newTopic(h, name)
		h.topics[name] = t
		h.spawn(t.run)
	}
	return t
}

// Follow subscribes to a stream: from where the client's cursor says, or from
// the stream's beginning without one. It asks nobody and cannot fail; what is
// wrong with the cursor comes as a gap.
func (h *Hub) Follow(s Stream, from *Cursor) *Subscription {
	sub := newSubscription(h, s, from)
	h.mu.Lock()
	defer h.mu.Unlock()
	sub.topic = h.topic(s.Topic)
	sub.topic.subscriptions[sub] = struct{}{}
	h.open++
	return sub
}

// Ended tells whether a cursor that is marked as an end is this stream's end:
// its last reply, or its expiry. It waits for the broker as long as the context
// lets it.
func (h *Hub) Ended(ctx context.Context, s Stream, c Cursor) (bool, error) {
	if c.Mark == MarkNone {
		return false, nil
	}
	sub := h.Follow(s, &c)
	defer sub.Close()
	switch _, err := sub.Next(ctx); {
	case errors.Is(err, io.EOF):
		return true, nil
	default:
		return false, err
	}
}

// evict drops the oldest records of the largest windows until all fit their bound.
func (h *Hub) evict() {
	h.evicting.Lock()
	defer h.evicting.Unlock()
	for {
		excess := h.windowBytes.Load() - h.config.WindowBytes
		if excess <= 0 {
			return
		}
		var largest *partition
		var most int64
		h.mu.Lock()
		for _, t := range h.topics {
			for _, p := range t.partitions {
				if held := p.held(); held > most {
					largest, most = p, held
				}
			}
		}
		h.mu.Unlock()
		if largest == nil {
			return
		}
		largest.evict(excess)
	}
}

// evictSome is evict for what comes bit by bit: it waits for that to be worth
// the look at all windows.
func (h *Hub) evictSome() {
	if bound := h.config.WindowBytes; h.windowBytes.Load() > bound+bound/64 {
		h.evict()
	}
}

// setHome sets the home partitions of the reply topic.
func (h *Hub) setHome(owned []int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.home)
	for _, index := range owned {
		h.home[index] = true
	}
	h.topic(h.config.Topic).applyHome()
}

// positions tells up to where the home partitions were read.
func (h *Hub) positions() map[int32]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := make(map[int32]int64, len(h.home))
	for index := range h.home {
		if p := h.topic(h.config.Topic).partitions[index]; p != nil {
			if position, ok := p.position(time.Now()); ok {
				at[index] = position.offset
			}
		}
	}
	return at
}

// observe takes note of a high watermark that a broker told.
func (h *Hub) observe(p *partition, high int64) {
	if p.topic.name == h.config.Topic {
		h.floors.observe(p.incarnation, p.index, high)
	}
}

// Stats counts what a Hub holds.
type Stats struct {
	// Subscriptions are the streams followed now.
	Subscriptions int
	// Tails are the partitions read as they grow, and Home those of them that
	// this gateway owns.
	Tails, Home int
	// WindowBytes is the memory that their recent records take.
	WindowBytes int64
	// Dropped counts the records that were no replies, since the hub was made.
	Dropped int64
}

// Stats gives the counts of this moment.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Stats{Subscriptions: h.open, Home: len(h.home), WindowBytes: h.windowBytes.Load(), Dropped: h.dropped.Load()}
	for _, t := range h.tails {
		s.Tails += len(t.partitions)
	}
	return s
}
