package world

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// entry is a record as it lies on a topic.
type entry struct {
	record.Record
	partition int32
	offset    int64
	at        time.Time
}

// id is the stream that it belongs to.
func (e entry) id() string {
	id, _ := record.CorrelationID(e.Headers)
	return id
}

// logs are the committed records of topics, by partition and in order.
type logs map[string]map[int32][]entry

// readLogs reads the topics with a client that is not ours.
func (w *world) readLogs(topics ...string) (logs, error) {
	all := make(logs)
	ends := make(map[string]map[int32]int64)
	from := make(map[string]map[int32]kgo.Offset)
	left := 0
	for _, topic := range topics {
		all[topic], ends[topic], from[topic] = make(map[int32][]entry), make(map[int32]int64), make(map[int32]kgo.Offset)
		for _, p := range w.cluster.PartitionInfos(topic) {
			if p.HighWatermark > 0 {
				ends[topic][p.Partition], from[topic][p.Partition] = p.HighWatermark, kgo.NewOffset().At(0)
				left++
			}
		}
		if len(from[topic]) == 0 {
			delete(from, topic)
		}
	}
	if left == 0 {
		return all, nil
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(w.addresses...), kgo.Dialer(w.network.DialContext), kgo.ConsumePartitions(from),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for left > 0 {
		fetched := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fetched.EachRecord(func(r *kgo.Record) {
			if r.Offset == ends[r.Topic][r.Partition]-1 {
				left--
			}
			if r.Attrs.IsControl() {
				return
			}
			e := entry{partition: r.Partition, offset: r.Offset, at: r.Timestamp}
			e.Key, e.Value = r.Key, r.Value
			for _, h := range r.Headers {
				e.Headers = append(e.Headers, record.Header{Key: h.Key, Value: h.Value})
			}
			all[r.Topic][r.Partition] = append(all[r.Topic][r.Partition], e)
		})
	}
	return all, nil
}
