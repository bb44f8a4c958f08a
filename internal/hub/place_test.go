package hub

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// placerOf makes a placer by hand. A floor of unknownFloor is unknown.
func placerOf(home []int32, floors ...int64) *placer {
	f, h := newFloors(floorsConfig{}), newHome(homeConfig{topic: gatewayTopic})
	s, _ := f.adopt(topicOf(1, len(floors)))
	for p, at := range floors {
		f.observe(s.incarnation, int32(p), at)
	}
	h.partitions.Store(&home)
	return newPlacer(gatewayTopic, f, h)
}

func TestPlace(t *testing.T) {
	const u = unknownFloor
	for name, c := range map[string]struct {
		home     []int32
		floors   []int64
		fallback uint32
		want     map[int32]int64 // partitions that may be chosen, and their floors
	}{
		"any home partition":                     {[]int32{1, 3}, []int64{10, 11, 12, 13}, 0, map[int32]int64{1: 11, 3: 13}},
		"the home partition with a floor":        {[]int32{1, 3}, []int64{10, u, 12, 13}, 0, map[int32]int64{3: 13}},
		"none is home: one, always the same":     {nil, []int64{10, 11, 12}, 7, map[int32]int64{1: 11}},
		"none is home: one with a floor":         {nil, []int64{u, 11, 12}, 0, map[int32]int64{1: 11}},
		"no home partition has a floor: another": {[]int32{0}, []int64{u, u, 12}, 1, map[int32]int64{2: 12}},
		"home of before the topic shrank":        {[]int32{4}, []int64{10}, 0, map[int32]int64{0: 10}},
		"an empty partition":                     {[]int32{0}, []int64{0}, 0, map[int32]int64{0: 0}},
		"none known":                             {[]int32{0}, []int64{u, u}, 0, nil},
		"a topic without partitions":             {nil, nil, 0, nil},
	} {
		bubble(t, name, func(t *testing.T) {
			p := placerOf(c.home, c.floors...)
			p.fallback = c.fallback
			chosen := make(map[int32]bool)
			for range 10 {
				at, ok := p.choose()
				if !ok {
					break
				}
				chosen[at.Partition] = true
				time.Sleep(turn)
				want := Place{
					Topic: gatewayTopic, Partition: at.Partition, Partitions: int32(len(c.floors)),
					Floor: c.want[at.Partition], Incarnation: 1 << 24,
				}
				if at != want {
					t.Fatalf("%+v, want %+v", at, want)
				}
			}
			if len(chosen) != len(c.want) {
				t.Fatalf("chose %v of %v", chosen, c.want)
			}
			for partition := range chosen {
				if _, ok := c.want[partition]; !ok {
					t.Fatalf("chose %d, none of %v", partition, c.want)
				}
			}
		})
	}
}

// Streams that begin together have one partition, and all have as many turns.
func TestPlaceInTurns(t *testing.T) {
	bubble(t, "of three", func(t *testing.T) {
		p := placerOf([]int32{1, 2, 4}, 10, 11, 12, 13, 14)
		p.fallback = 1<<32 - 1
		turns := make(map[int32]int)
		for range 30 {
			begun, _ := p.choose()
			time.Sleep(turn - 1)
			if at, _ := p.choose(); at != begun {
				t.Fatalf("%+v and then %+v within a turn", begun, at)
			}
			turns[begun.Partition]++
			time.Sleep(time.Nanosecond)
		}
		if len(turns) != 3 || turns[1] != 10 || turns[2] != 10 || turns[4] != 10 {
			t.Errorf("turns %v", turns)
		}
	})
}

func TestPlaceWaits(t *testing.T) {
	bubble(t, "for a floor", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		c.goDown()
		g := c.start(false)
		placed := make(chan error, 1)
		go func() {
			_, err := g.placer.place(t.Context())
			placed <- err
		}()
		pass(5 * time.Second)
		select {
		case err := <-placed:
			t.Fatal("did not wait: ", err)
		default:
		}
		c.comeUp()
		if err := <-placed; err != nil {
			t.Fatal(err)
		}
	})

	bubble(t, "till the context ends, and says what is in the way", func(t *testing.T) {
		c := newGatewayCluster(t, kfake.SeedTopics(2, gatewayTopic))
		c.goDown()
		g := c.start(false)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := g.placer.place(ctx)
		if !errors.Is(err, ErrNoFloor) || !strings.Contains(err.Error(), "connection refused") {
			t.Fatal(err)
		}
	})

	bubble(t, "not at all with a floor at hand", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := placerOf(nil, 5).place(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := placerOf(nil, unknownFloor).place(ctx); !errors.Is(err, ErrNoFloor) || !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

// Every request is placed, so placing must neither lock nor leave garbage.
func BenchmarkPlace(b *testing.B) {
	p := placerOf([]int32{0, 1, 2, 3, 4, 5, 6, 7}, make([]int64, 32)...)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.place(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}
