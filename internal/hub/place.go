package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ErrNoFloor says that a request cannot be placed yet, because no reply
// partition is known well enough to say from where its replies are to be read.
// The error that wraps it says why.
var ErrNoFloor = errors.New("no reply partition to name yet")

// Place is where the replies of a new stream are awaited.
type Place struct {
	// Topic is the reply topic.
	Topic string
	// Partition is the one that the worker is to answer on.
	Partition int32
	// Partitions is how many the topic has now, so that its growth is noticed.
	Partitions int32
	// Floor is an offset that all replies of a request produced from now on are at or after.
	Floor int64
	// Incarnation tells the topic from a later one of the same name.
	Incarnation uint32
}

// placer chooses reply partitions for new streams.
type placer struct {
	topic  string
	floors *floors
	home   *home
	// fallback picks the partition while none is home, and the home partition with
	// which turns begin. It is chance, but the same as long as the process runs, so
	// that a gateway without home follows one partition and not all of them.
	fallback uint32
}

func newPlacer(topic string, f *floors, h *home) *placer {
	return &placer{topic: topic, floors: f, home: h, fallback: rand.Uint32()}
}

// turn is how long new streams get the same home partition. Requests that come
// together are mostly answered together, and a worker then writes a batch with
// all of these answers, where it would else write one for each partition: a
// broker, and whoever reads, has as much work with a batch of one record as with
// one of a hundred. It is short, so that the answers of a busy site are on all
// partitions, and with them on all brokers.
const turn = 10 * time.Millisecond

// place chooses a partition for a new stream: a home partition that has a
// floor, so that replies arrive where the client most likely is, each for a turn. Where there is
// none, be it that the group was not joined yet, that there are more gateways
// than partitions, or that the leaders of the home partitions do not answer,
// it is another one with a floor, which the hub reads on demand.
//
// It waits for a floor until the context ends, and then gives an error that
// wraps [ErrNoFloor] and says what is in the way.
func (p *placer) place(ctx context.Context) (Place, error) {
	if at, ok := p.choose(); ok {
		return at, nil
	}
	for {
		news := p.floors.next()
		if at, ok := p.choose(); ok {
			return at, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			err := p.floors.err()
			if err == nil {
				err = ctx.Err()
			}
			return Place{}, fmt.Errorf("%w: %w", ErrNoFloor, err)
		}
	}
}

// choose is place without the waiting. It takes no lock: every request comes by here.
func (p *placer) choose() (Place, bool) {
	s := p.floors.current()
	if s == nil || len(s.offsets) == 0 {
		return Place{}, false
	}
	if home := p.home.owned(); len(home) > 0 {
		first := int((uint64(p.fallback) + uint64(time.Now().UnixNano()/int64(turn))) % uint64(len(home))) //nolint:gosec // a remainder
		for i := range home {
			if at, ok := p.at(s, home[(first+i)%len(home)]); ok {
				return at, true
			}
		}
	}
	first := int(p.fallback % uint32(len(s.offsets)))
	for i := range s.offsets {
		if at, ok := p.at(s, int32((first+i)%len(s.offsets))); ok {
			return at, true
		}
	}
	return Place{}, false
}

func (p *placer) at(s *floorSet, partition int32) (Place, bool) {
	floor, ok := s.floor(partition)
	return Place{
		Topic: p.topic, Partition: partition, Partitions: int32(len(s.offsets)),
		Floor: floor, Incarnation: s.incarnation,
	}, ok
}
