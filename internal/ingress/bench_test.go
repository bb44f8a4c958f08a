package ingress

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// sample is a request as the gateway makes them: 1 KiB and 12 headers.
func sample(key []byte) record.Record {
	r := record.Record{Key: key, Value: bytes.Repeat([]byte("x"), 1024)}
	for i := range 12 {
		r.Headers = append(r.Headers, record.Header{Key: fmt.Sprintf("header-%d", i), Value: []byte("a value of some length")})
	}
	return r
}

// BenchmarkProduce measures acknowledged records against kfake in memory on
// loopback, in this process: its cost is in the figures, so that they compare
// two states of this package, and say little about a real broker. The grid is
// submitters (each waits for its answer) by placement.
//
//	go test ./internal/ingress -run '^$' -bench Produce -benchmem
func BenchmarkProduce(b *testing.B) {
	for _, placed := range []bool{false, true} {
		for _, submitters := range []int{1, 64, 512} {
			b.Run(fmt.Sprintf("placed=%t/submitters=%d", placed, submitters), func(b *testing.B) {
				cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(8, "orders"))
				if err != nil {
					b.Fatal(err)
				}
				defer cluster.Close()
				client := broker.New(broker.Config{Addresses: cluster.ListenAddrs()})
				defer client.Close()
				p := New(Config{Broker: client})
				defer p.Close()
				if _, err := p.Produce(context.Background(), Request{Topic: "orders", Record: sample(nil)}); err != nil {
					b.Fatal(err)
				}

				b.ReportAllocs()
				b.ResetTimer()
				var next atomic.Int64
				var all sync.WaitGroup
				for s := range submitters {
					all.Go(func() {
						r := Request{Topic: "orders", Record: sample(nil)}
						if placed {
							r.Record.Key = fmt.Appendf(nil, "customer-%d", s)
						}
						for next.Add(1) <= int64(b.N) {
							if _, err := p.Produce(context.Background(), r); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
			})
		}
	}
}

// BenchmarkEncode compares the two ways to encode a batch of 64 records, per
// batch: this package's, in which tails are encoded by the callers, and
// kafka-go's, with the idempotent fields written over.
func BenchmarkEncode(b *testing.B) {
	const n = 64
	now := time.Now()
	b.Run("this", func(b *testing.B) {
		b.ReportAllocs()
		list := make([]*entry, n)
		for i := range list {
			list[i] = &entry{}
		}
		r := sample(nil)
		var buffer []byte
		for b.Loop() {
			for _, e := range list {
				e.tail = appendTail(e.tail[:0], r)
			}
			buffer = appendBatch(buffer[:0], identity{1, 2, 3}, now, list)
		}
		b.SetBytes(int64(len(buffer)))
	})
	b.Run("kafka-go", func(b *testing.B) {
		b.ReportAllocs()
		records := make([]kafka.Record, n)
		r := sample(nil)
		var buffer bytes.Buffer
		for b.Loop() {
			for i := range records {
				records[i] = kafka.Record{Time: now, Value: kafka.NewBytes(r.Value), Headers: r.Headers}
			}
			buffer.Reset()
			set := protocol.RecordSet{Version: 2, Records: kafka.NewRecordReader(records...)}
			if _, err := set.WriteTo(&buffer); err != nil {
				b.Fatal(err)
			}
			batch := buffer.Bytes()[4:]
			binary.BigEndian.PutUint64(batch[43:], 1)
			binary.BigEndian.PutUint32(batch[crcAt:], crc32.Checksum(batch[bodyAt:], castagnoli))
		}
		b.SetBytes(int64(buffer.Len()))
	})
}
