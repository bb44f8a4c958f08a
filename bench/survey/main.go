// Command survey measures what it costs to look at many topics and groups: how
// far each group is in each partition, who is in it, how long records wait.
//
//	go run ./bench/survey [-topics 50] [-partitions 20] [-groups 1] [-rounds 1] [-duration 12s] [-profile survey.pprof]
//
// All of it runs in this process, whose own CPU time is told per look, and as a
// share of one core at the default interval. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// Flags.
var (
	topics     = flag.Int("topics", 50, "topics")
	partitions = flag.Int("partitions", 20, "partitions of each topic")
	groups     = flag.Int("groups", 1, "groups that work on each topic")
	rounds     = flag.Int("rounds", 1, "rounds; figures are medians over them")
	duration   = flag.Duration("duration", 12*time.Second, "time of each contender in a round, its first look not counted")
	profile    = flag.String("profile", "", "write the CPU profile of the survey where records wait, over all rounds, to this `file`")
)

// every is the survey's default interval.
const every = 2 * time.Second

// waiting is how many records each group has left in each partition.
const waiting = 10

func main() { rig.Main(run) }

// contender looks at everything until ctx ends. After its first look it says so,
// and in the end how often it has looked since.
type contender struct {
	name string
	look func(ctx context.Context, client *broker.Client, begun func()) (looks int, err error)
}

// sample is what one of them used.
type sample struct {
	cpu   time.Duration
	looks int
}

func run(ctx context.Context, r *rig.Rig) error {
	address, err := r.Kafka(ctx)
	if err != nil {
		return err
	}
	if err := fill(ctx, r, address); err != nil {
		return err
	}
	all := []contender{
		{"**Survey**, records wait", survey("busy", false)},
		{"**Survey**, asleep, to be woken", survey("idle", true)},
		{"one topic and group after the other", oneByOne},
		{"connections alone", idle},
	}
	heading := fmt.Sprintf("%d partitions of %d topics, %d groups a topic", *topics**partitions, *topics, *groups)
	r.Say("%s", heading)
	samples, err := rig.Rounds(*rounds, len(all), func(_, i int) (sample, error) { return measure(ctx, address, all[i], i == 0) })
	if err != nil {
		return err
	}
	t := rig.Table{Head: []string{"", "CPU a look", "of a core, a look each " + every.String(), "÷ Survey"}}
	cost := func(s sample) time.Duration { return s.cpu / time.Duration(s.looks) }
	for i, c := range all {
		each := rig.Each(samples[i], cost)
		t.Add(c.name, rig.Millis(rig.Median(each)), fmt.Sprintf("%.2f %%", 100*rig.Median(each).Seconds()/every.Seconds()),
			rig.Ratio(each, rig.Each(samples[0], cost)))
	}
	t.Write(r.Out, heading)
	return nil
}

// firstLook is how long the first look may take.
const firstLook = time.Minute

// measure gives one contender its turn.
func measure(ctx context.Context, address string, c contender, profiled bool) (sample, error) {
	client := broker.New(broker.Config{Addresses: []string{address}})
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, firstLook+*duration)
	defer cancel()
	if profiled && *profile != "" {
		file, err := os.OpenFile(*profile, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return sample{}, fmt.Errorf("open the profile: %w", err)
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return sample{}, fmt.Errorf("begin the profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	var before time.Duration
	looks, err := c.look(ctx, client, func() { // the first look is over
		before = rig.OwnCPU()
		time.AfterFunc(*duration, cancel)
	})
	if ctx.Err() != nil {
		err = nil // it was told to end
	}
	if err == nil && looks <= 0 {
		err = errors.New("it has not looked")
	}
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", c.name, err)
	}
	return sample{rig.OwnCPU() - before, looks}, nil
}

// survey watches every topic with every group of a kind.
func survey(kind string, wake bool) func(context.Context, *broker.Client, func()) (int, error) {
	return func(ctx context.Context, client *broker.Client, begun func()) (int, error) {
		s := autoscale.NewSurvey(autoscale.SurveyConfig{Broker: client, Every: every})
		defer s.Close()
		var watching sync.WaitGroup
		wrong := make(chan string, 1)
		looks := -1 // of the last watch: then all the others have been looked at, too
		for topic := range *topics {
			for group := range *groups {
				w := s.Watch(autoscale.Watched{Topic: topicName(topic), Group: groupName(kind, topic, group)})
				counts := topic == *topics-1 && group == *groups-1
				watching.Go(func() {
					for {
						m, err := w.Next(ctx, autoscale.Want{Wake: wake})
						if err != nil {
							return
						}
						if counts {
							if looks++; looks == 0 {
								begun()
							}
						}
						if got := total(m); got != want(kind) {
							select {
							case wrong <- fmt.Sprintf("%d wait for %s, not %d", got, groupName(kind, topic, group), want(kind)):
							default:
							}
						}
					}
				})
			}
		}
		watching.Wait()
		select {
		case what := <-wrong:
			return 0, errors.New(what)
		default:
			return looks, nil
		}
	}
}

func want(kind string) int64 {
	if kind == "idle" {
		return 0
	}
	return int64(*partitions) * waiting
}

func total(m autoscale.Measurement) int64 {
	var n int64
	for _, p := range m.Partitions {
		n += p.Backlog
	}
	return n
}

// oneByOne asks kafka-go's own client about each group by itself.
func oneByOne(ctx context.Context, client *broker.Client, begun func()) (int, error) {
	numbers := make([]int, *partitions)
	partitions := make([]int32, len(numbers))
	for i := range numbers {
		numbers[i], partitions[i] = i, int32(i) //nolint:gosec // a handful
	}
	for looks := -1; ; looks++ {
		if looks == 0 {
			begun()
		}
		for pair := range *topics * *groups {
			topic, group := pair / *groups, pair%*groups
			if err := oneLook(ctx, client, topicName(topic), groupName("busy", topic, group), numbers, partitions); err != nil {
				return looks, err
			}
		}
		select {
		case <-ctx.Done():
			return looks, ctx.Err()
		case <-time.After(every):
		}
	}
}

// oneLook asks about one group on one topic.
func oneLook(ctx context.Context, client *broker.Client, topic, group string, numbers []int, partitions []int32) error {
	t, err := client.Topic(ctx, topic)
	if err != nil {
		return err
	}
	if _, err := client.API().OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: numbers},
	}); err != nil {
		return err
	}
	for _, at := range []int64{broker.LogStart, broker.HighWatermark} {
		if _, err := client.Offsets(ctx, t, partitions, at); err != nil {
			return err
		}
	}
	return nil
}

// idle makes connections and leaves them: they ask for all topics by themselves.
func idle(ctx context.Context, client *broker.Client, begun func()) (int, error) {
	if _, err := client.Topic(ctx, topicName(0)); err != nil {
		return 0, err
	}
	begun()
	<-ctx.Done()
	return int(*duration / every), nil
}

func topicName(topic int) string { return fmt.Sprintf("topic-%03d", topic) }

func groupName(kind string, topic, group int) string {
	return fmt.Sprintf("%s-%03d-%03d", kind, topic, group)
}

// fill makes the topics, writes records, and commits for the groups.
func fill(ctx context.Context, r *rig.Rig, address string) error {
	names := make([]string, *topics)
	for i := range names {
		names[i] = topicName(i)
	}
	if err := r.CreateTopics(ctx, address, *partitions, names...); err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.UnknownTopicRetries(-1))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	const done = 5
	var records []*kgo.Record
	for _, name := range names {
		for p := range *partitions {
			for range done + waiting {
				records = append(records, &kgo.Record{Topic: name, Partition: int32(p), Value: []byte("value")}) //nolint:gosec // a handful
			}
		}
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	admin := kadm.NewClient(client)
	for i, name := range names {
		for group := range *groups {
			for kind, at := range map[string]int64{"busy": done, "idle": done + waiting} {
				var offsets kadm.Offsets
				for p := range *partitions {
					offsets.AddOffset(name, int32(p), at, -1) //nolint:gosec // a handful
				}
				if err := admin.CommitAllOffsets(ctx, groupName(kind, i, group), offsets); err != nil {
					return fmt.Errorf("commit: %w", err)
				}
			}
		}
	}
	return nil
}
