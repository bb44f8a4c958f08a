// Command streams measures open streams: what an idle one holds in memory, and
// what a reply costs when many are open against when few are.
//
//	go run ./bench/streams [-streams 20000] [-few 100] [-rounds 3] [-replies 10000]
//
// It opens event streams to Osmosis, and to a bare net/http server beside it,
// each from as many source addresses as the default limit per client asks for.
// Then replies go to streams that stay open, those of the process with many
// streams and those of a process with few in turns. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// Flags.
var (
	many    = flag.Int("streams", 20_000, "open streams; fewer where the limit of open files of a process is lower")
	few     = flag.Int("few", 100, "open streams of the process that replies are compared with")
	rounds  = flag.Int("rounds", 3, "rounds; figures of replies are medians over them")
	settle  = flag.Duration("settle", 5*time.Second, "how long streams are quiet, and no memory is given back, before it is measured")
	replies = flag.Int("replies", 10_000, "replies in a round")
	heap    = flag.String("heap", "", "with all streams of Osmosis open and idle, write its heap profile to this `file` and print its top")
	profile = flag.String("profile", "", "after the rounds, have Osmosis with many streams pass on replies for 10 s, write its CPU profile to this `file` and print its top")
)

func main() { rig.Main(run) }

// spare are the descriptors that a process needs besides its streams.
const spare = 200

func run(ctx context.Context, r *rig.Rig) error {
	limit, err := rig.Descriptors()
	if err != nil {
		return err
	}
	count := *many
	if most := limit - *few - spare; count > most {
		r.Say("a process may have %d files open here, so there will be %d streams instead of %d", limit, most, count)
		count = most
	}
	kafka, err := r.Kafka(ctx)
	if err != nil {
		return err
	}
	memory := rig.Table{Head: []string{"", "streams", "resident a stream", "heap and stacks in use a stream", "resident in all", "idle CPU"}}
	cost := rig.Table{Head: []string{"", "streams", "p50", "p99", "CPU-s per 10,000", fmt.Sprintf("CPU ÷ with %d", *few), fmt.Sprintf("p50 ÷ with %d", *few)}}
	for _, kind := range []rig.Kind{rig.Idle, rig.Osmosis, rig.Franz} {
		r.Say("%s: %d streams", kind.Title(), count)
		if err := contend(ctx, r, kafka, kind, count, &memory, &cost); err != nil {
			return err
		}
	}
	memory.Write(r.Out, "Memory of idle event streams")
	cost.Write(r.Out, "A reply to one of the open streams, from produce call to event")
	return nil
}

// contend measures one kind, with many streams and with few.
func contend(ctx context.Context, r *rig.Rig, kafka string, kind rig.Kind, count int, memory, cost *rig.Table) error {
	var crowds []*crowd
	sizes := []int{*few, count}
	if kind == rig.Idle { // it has no replies to compare
		sizes = []int{count}
	}
	for _, n := range sizes {
		c, err := gather(ctx, r, kafka, kind, n)
		if err != nil {
			return err
		}
		defer c.close()
		crowds = append(crowds, c)
	}
	large := crowds[len(crowds)-1]
	idle, err := large.idle(ctx)
	if err != nil {
		return err
	}
	memory.Add(large.process.Name, fmt.Sprint(count),
		kib(float64(large.after.Resident-large.before.Resident)/float64(count)),
		kib(float64(large.after.InUse-large.before.InUse)/float64(count)),
		fmt.Sprintf("%d MiB", large.after.Resident>>20), fmt.Sprintf("%.1f %%", 100*idle))

	if *heap != "" && kind == rig.Osmosis {
		if err := r.HeapProfile(ctx, large.process, *heap); err != nil {
			return err
		}
	}
	if kind == rig.Idle {
		return nil
	}
	for _, c := range crowds { // caches, connections
		if _, err := c.reply(ctx, *replies/5+1); err != nil {
			return err
		}
	}
	samples, err := rig.Rounds(*rounds, len(crowds), func(_, i int) (sample, error) {
		return crowds[i].reply(ctx, *replies)
	})
	if err != nil {
		return err
	}
	p50 := func(s sample) time.Duration { return s.p50 }
	p99 := func(s sample) time.Duration { return s.p99 }
	cpu := func(s sample) float64 { return s.cpu }
	for i, c := range crowds {
		cost.Add(c.process.Name, fmt.Sprint(len(c.streams)),
			rig.Millis(rig.Median(rig.Each(samples[i], p50))),
			rig.Millis(rig.Median(rig.Each(samples[i], p99))),
			fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], cpu))),
			rig.Ratio(rig.Each(samples[i], cpu), rig.Each(samples[0], cpu)),
			rig.Ratio(rig.Each(samples[i], p50), rig.Each(samples[0], p50)))
	}
	if *profile == "" || kind != rig.Osmosis {
		return nil
	}
	return r.ProfileUnder(ctx, large.process, 10*time.Second, *profile, func(long time.Duration) error {
		for until := time.Now().Add(long); time.Now().Before(until); {
			if _, err := large.reply(ctx, *replies); err != nil {
				return err
			}
		}
		return nil
	})
}

func kib(bytes float64) string { return fmt.Sprintf("%.1f KiB", bytes/1024) }
