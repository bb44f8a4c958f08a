package autoscale

import (
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// mostHoles is up to how many offsets are looked into for records: where
	// more wait, some that do not exist change little.
	mostHoles = 1000
	// stillFor is how many looks nothing must have moved before that: what is
	// being worked on tells by itself.
	stillFor = 3
	// holesAgain is how long what could not be told rests.
	holesAgain = 10 * time.Second
	// Each look asks a leader for the records of so many partitions, and of so
	// many bytes of them, and for the times of so many records.
	holesAtOnce, holesBytes = 64, 1 << 20
	timesAtOnce             = 8
)

// holes counts the offsets of a partition that hold no record for the group.
type holes struct {
	from, upto int64 // those that were looked at
	n          int64
	next       time.Time // not again before that
}

// before counts those from where a group goes on to the end.
func (h *holes) before(from, end int64) int64 {
	if from != h.from || h.upto > end {
		return 0
	}
	return h.n
}

// suspect tells whether to look for records really there.
func (w *Watch) suspect(p *part, now time.Time) bool {
	if p.backlog() <= 0 || p.lag > mostHoles || p.still < stillFor && w.group.members != 0 {
		return false
	}
	if p.holes.from != p.from || p.holes.upto > p.last.End {
		p.holes = holes{from: p.from, upto: p.from}
	}
	return p.holes.upto < p.last.End && !now.Before(p.holes.next)
}

// spot is a partition of a watch.
type spot struct {
	watch *Watch
	part  *part
	from  broker.FetchFrom
}

// detail asks for what offsets do not tell: whether records are there, and how old
// they are.
func (s *Survey) detail(watches []*Watch, now time.Time) {
	counts, times := make(map[int32][]spot), make(map[int32][]spot)
	asked := make(map[*end]bool)
	for n := range watches {
		w := watches[(n+s.number)%len(watches)] // each has its turn at being first
		if w.topic.err != nil {
			continue
		}
		for i := range w.parts {
			p, e, leader := &w.parts[i], &w.topic.ends[i], w.topic.led.Leaders[i]
			if leader < 0 || p.lag == Unknown {
				continue
			}
			at := spot{w, p, broker.FetchFrom{Topic: w.topic.name, ID: w.topic.led.ID, Partition: int32(i)}} //nolint:gosec // partition numbers are 32 bits
			if len(counts[leader]) < holesAtOnce && !asked[e] && w.suspect(p, now) {
				asked[e] = true // a partition is in a question only once
				at.from.Offset = p.holes.upto
				counts[leader] = append(counts[leader], at)
			}
			if len(times[leader]) < timesAtOnce && w.vague(i, now) {
				at.from.Offset = p.from
				times[leader] = append(times[leader], at)
			}
		}
	}
	ctx, cancel := s.step()
	defer cancel()
	var asking sync.WaitGroup
	for leader, spots := range counts {
		asking.Go(func() {
			q := broker.FetchRequest{Leader: leader, MaxBytes: holesBytes}
			for _, at := range spots {
				at.part.holes.next = now.Add(holesAgain)
				q.From = append(q.From, at.from)
			}
			fetched, _ := s.config.Broker.Fetch(ctx, q)
			for _, f := range fetched {
				for _, at := range spots {
					if at.from.Topic == f.Topic && at.from.Partition == f.Partition {
						at.part.holes.count(f, at.from.Offset, at.part.last.End)
					}
				}
			}
		})
	}
	var mu sync.Mutex // guards ages, which several may share
	for leader, spots := range times {
		for _, at := range spots {
			at.part.aged = at.from.Offset + 1
			asking.Go(func() {
				came, err := s.config.Broker.TimeAt(ctx, leader, at.from)
				if err != nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				at.watch.topic.ends[at.from.Partition].ages.insert(at.from.Offset, came)
			})
		}
	}
	asking.Wait()
}

// count takes in what was fetched from an offset on, of what is before the end.
func (h *holes) count(f broker.Fetched, from, end int64) {
	upto := min(f.Next, end)
	if f.Err != nil || upto <= from {
		return
	}
	n := upto - from
	for _, r := range f.Records {
		if r.Offset < end {
			n--
		}
	}
	h.upto, h.n, h.next = upto, h.n+n, time.Time{}
}
