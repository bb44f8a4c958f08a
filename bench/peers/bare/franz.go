package main

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// franz produces with franz-go, which batches by itself what comes while a
// request is under way.
type franz struct{ client *kgo.Client }

func newFranz() (*franz, error) {
	c, err := kgo.NewClient(kgo.SeedBrokers(*broker), kgo.DefaultProduceTopic(*topic), kgo.ProducerLinger(0))
	return &franz{client: c}, err
}

func (f *franz) produce(ctx context.Context, m message) error {
	rec := &kgo.Record{Key: m.key, Value: m.value}
	for _, h := range m.headers {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.name, Value: h.value})
	}
	return f.client.ProduceSync(ctx, rec).FirstErr()
}

// followFranz reads the reply topic from now on.
func followFranz(w *waiting) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(*broker), kgo.ConsumeTopics(*replies), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	go func() {
		for {
			fetches := c.PollFetches(context.Background())
			fetches.EachRecord(func(rec *kgo.Record) {
				r := reply{body: rec.Value}
				for _, h := range rec.Headers {
					switch h.Key {
					case correlationID:
						r.id = string(h.Value)
					case more:
						r.more = string(h.Value) == "true"
					}
				}
				w.deliver(r)
			})
		}
	}()
	return nil
}
