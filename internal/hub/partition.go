package hub

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// partition is one partition of one incarnation of a topic, as far as this
// gateway has it in memory: the window of its latest records, the readers that
// stand in it, and what is known of the log's ends. A tail moves it on.
type partition struct {
	hub         *Hub
	topic       *topic
	index       int32
	id          broker.TopicID
	incarnation uint32

	// tail is the loop that reads the partition, nil while no leader is known.
	// Only who holds the hub's lock sets it.
	tail atomic.Pointer[tail]
	home bool // guarded by the hub's lock

	mu sync.Mutex
	// vouched is the tail whose broker is known to mean this life of the topic.
	vouched *tail
	log     ends
	window  window
	// epoch is the leader epoch of what lies before the window's end, where it was read.
	epoch   broker.Epoch
	readers map[*reader]struct{}
	// left is when the last reader went, or when the partition stopped being home.
	left time.Time
	// watching holds, by stream, the readers that have seen all there is.
	watching map[string]*reader
	// awaiting holds the readers to wake when anything is learned of the log's
	// ends, and wanted the newest tick that one of them waits for.
	awaiting map[*reader]struct{}
	wanted   uint64
	scan     scan
	times    locations
	// pausedUntil keeps a partition that answers with an error out of the next fetches.
	pausedUntil time.Time
	retired     bool
}

// ends is what a broker said of a log. The ticks tell how old that is: a
// number of the hub's clock taken before the question was asked.
type ends struct {
	// known is false until the ends were asked for, and again after an answer
	// showed that they had moved under the reader.
	known bool
	// life counts how often they had to be looked up anew.
	life int
	// start is the first offset there is.
	start int64
	// high is the high watermark, and at least as high as all that was read; no
	// older than it says. Answers may overtake each other, so a lower one counts
	// only if it was asked for after highSeen, when this one was last confirmed.
	high     told
	highSeen uint64
	// stable is the offset up to which transactions are decided.
	stable told
}

func newPartition(t *topic, index int32) *partition {
	p := &partition{
		hub: t.hub, topic: t, index: index, id: t.is.ID, incarnation: t.is.ID.Incarnation(),
		readers:  make(map[*reader]struct{}),
		left:     time.Now(),
		watching: make(map[string]*reader),
		awaiting: make(map[*reader]struct{}),
		scan:     scan{at: noPass},
	}
	p.window.reset(0)
	return p
}

// found sets the ends of the log and begins the window at its end. Readers that
// had seen everything are told to look again: the log may have lost what they
// stand on.
func (p *partition) found(start, high int64, tick uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log.known || p.retired {
		return
	}
	p.log = ends{known: true, life: p.log.life + 1, start: start, high: told{high, tick}, highSeen: p.hub.tick()}
	for _, first := range p.watching {
		for r := first; r != nil; r = r.after {
			r.next = max(r.next, p.window.next)
			r.state = idle
		}
	}
	clear(p.watching)
	p.hub.windowBytes.Add(-p.window.bytes)
	p.window.reset(high)
	p.epoch = broker.Epoch{}
	if len(p.scan.waiting) > 0 {
		p.runScan()
	}
	for r := range p.readers {
		r.notify()
	}
}

// lookAgain drops what is known of the log's ends, so that they are asked for anew.
func (p *partition) lookAgain(life int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log.life == life {
		p.log.known = false
	}
}

// fresh takes a high watermark that was asked for after tick.
func (p *partition) fresh(high int64, tick uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raise(high, tick)
	p.wakeAwaiting()
}

// raise records a high watermark that was asked for at tick. Needs the lock.
func (p *partition) raise(high int64, tick uint64) {
	if !p.log.known {
		return
	}
	if high >= p.log.high.at || tick > p.log.highSeen {
		p.log.high.at, p.log.highSeen = high, p.hub.tick()
	}
	p.log.high.asked = max(p.log.high.asked, tick)
}

// position is where a tail goes on reading.
type position struct {
	life   int
	offset int64
	after  broker.Epoch
}

// position gives where to read on, or false while the partition cannot be read:
// its ends are unknown, or it is paused after an error.
func (p *partition) position(now time.Time) (position, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stands(), p.log.known && !p.retired && !now.Before(p.pausedUntil)
}

// stands is position without its conditions. Needs the lock.
func (p *partition) stands() position { return position{p.log.life, p.window.next, p.epoch} }

// take moves the partition on by an answer to a fetch from a position. An
// answer that is not for where the partition stands now is too late: the tail
// of another broker, or a look at the log's ends, came before.
func (p *partition) take(from position, f broker.Fetched, tick uint64) {
	entries := p.decode(f.Records)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || !p.log.known || from != p.stands() {
		return
	}
	before := p.window.bytes
	for _, e := range entries {
		p.window.add(e)
		p.wakeWatching(e)
	}
	p.window.next, p.epoch = max(p.window.next, f.Next), f.Epoch
	p.hub.windowBytes.Add(p.window.bytes - before)

	p.log.start = max(p.log.start, f.LogStart)
	p.raise(max(f.HighWatermark, f.Next), tick)
	p.settle(from.offset, f, tick)
	p.wakeAwaiting()
}

// settle records up to where transactions are decided, as an answer to a fetch
// from an offset shows it. Needs the lock.
func (p *partition) settle(from int64, f broker.Fetched, tick uint64) {
	before := p.log.stable.at
	if !p.log.stable.after(tick) {
		p.log.stable = told{f.Stable, tick}
	}
	if f.Next > from { // what was read is decided, also if it was asked for earlier
		p.log.stable.at = max(p.log.stable.at, f.Next)
	}
	if p.log.stable.at > before && len(p.scan.waiting) > 0 {
		p.runScan()
	}
}

// failure gives the error of an answer that cannot be taken. A batch beyond any
// bound will be so for ever: it is logged and passed over, since the streams
// whose replies are in it would else take all others of the partition with them.
func (p *partition) failure(f broker.Fetched) error {
	if !errors.Is(f.Err, broker.ErrBatchTooLarge) {
		return f.Err
	}
	p.hub.log.Error("batch of replies passed over", zap.String("topic", p.topic.name), zap.Int32("partition", p.index), zap.Int64("next", f.Next), zap.Error(f.Err))
	return nil
}

// decode makes entries of the records that are replies.
func (p *partition) decode(records []broker.Record) []*Entry {
	entries := make([]*Entry, 0, len(records))
	for _, r := range records {
		if e := p.entry(r); e != nil {
			entries = append(entries, e)
		}
	}
	return entries
}

// entry makes an entry of a record, or nil when the record is no reply: it has
// no correlation id, or nobody can tell what it says. Such records are counted.
func (p *partition) entry(r broker.Record) *Entry {
	reply, err := record.ParseReply(r.Record)
	if err != nil {
		p.hub.dropped.Add(1)
		if c := p.hub.log.Check(zap.DebugLevel, "record that is no reply"); c != nil {
			c.Write(zap.String("topic", p.topic.name), zap.Int32("partition", p.index), zap.Int64("offset", r.Offset), zap.Error(err))
		}
		return nil
	}
	// The record's bytes are part of the whole answer, which may be megabytes.
	reply.Body = bytes.Clone(reply.Body)
	e := &Entry{
		Cursor: Cursor{Incarnation: p.incarnation, Partition: p.index, Offset: r.Offset},
		Time:   r.Time,
		Reply:  reply,

		logTime:   r.LogTime,
		partition: p,
	}
	e.cost = e.weigh()
	return e
}

// wakeWatching tells the readers of the entry's stream, who had seen all before
// it. Needs the lock.
func (p *partition) wakeWatching(e *Entry) {
	var still *reader
	for r := p.watching[e.Reply.StreamID]; r != nil; {
		after := r.after
		if r.next > e.Cursor.Offset { // it begins later
			r.before, r.after = nil, still
			if still != nil {
				still.before = r
			}
			still = r
		} else {
			r.state, r.next = idle, e.Cursor.Offset
			r.before, r.after = nil, nil
			r.notify()
		}
		r = after
	}
	if still != nil {
		p.watching[e.Reply.StreamID] = still
	} else {
		delete(p.watching, e.Reply.StreamID)
	}
}

// wakeAwaiting tells everyone who waits for news of the log's ends. Needs the lock.
func (p *partition) wakeAwaiting() {
	for r := range p.awaiting {
		r.notify()
	}
	clear(p.awaiting)
}

// pause keeps the partition out of fetches for a while.
func (p *partition) pause(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pausedUntil = time.Now().Add(d)
}

// evict drops the oldest records in memory, of the window or of what is put
// aside, whichever has more, until so many bytes are free, but not more than a
// few at a time, since readers wait for the lock.
func (p *partition) evict(excess int64) {
	const batch = 64
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := 0; n < batch && excess > 0; n++ {
		if p.scan.bytes > p.window.bytes {
			excess -= p.clearOldest()
			continue
		}
		freed := p.window.evict()
		if freed == 0 {
			return
		}
		p.hub.windowBytes.Add(-freed)
		excess -= freed
	}
}

// held gives the bytes that the window and what is put aside hold.
func (p *partition) held() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.window.bytes + p.scan.bytes
}

// idleSince tells since when nobody has read the partition; false while somebody does.
func (p *partition) idleSince() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left, len(p.readers) == 0
}

// touch begins the time for which nobody reads the partition.
func (p *partition) touch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = time.Now()
}

// retire ends the partition: its topic is another one now, or nobody needs it.
func (p *partition) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retired = true
	p.hub.windowBytes.Add(-p.window.bytes)
	p.window.reset(p.window.next)
}
