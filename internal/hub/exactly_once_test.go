package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// TestEveryReplyOnce is the promise of the package: whatever clients, gateways
// and brokers do, a client that comes back with the id of its last event sees
// every reply of its stream once and in order, and then its end.
//
// Two gateways with windows of a few records serve clients that read at random
// paces, close their connection at random, and go on at the other gateway,
// while leaders move and the network goes down.
func TestEveryReplyOnce(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { everyReplyOnce(t, seed) })
		})
	}
}

func everyReplyOnce(t *testing.T, seed uint64) {
	const streams, partitions = 40, 3
	r := newRig(t, partitions, kfake.NumBrokers(2), kfake.Ports(9092, 9093))
	hubs := []*Hub{r.newHub(Config{WindowBytes: 4000}), r.newHub(Config{WindowBytes: 40_000})}
	incarnation := r.incarnation()
	lengths := make([]int, streams)
	var clients sync.WaitGroup
	for i := range streams {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		lengths[i] = 1 + random.IntN(150)
		s := Stream{
			ID: fmt.Sprint("stream", i), Topic: gatewayTopic, Partition: int32(i % partitions), Partitions: partitions,
			Incarnation: incarnation, Issued: time.Now(), Expires: time.Now().Add(12 * time.Hour),
		}
		for range 2 {
			random := rand.New(rand.NewPCG(seed, random.Uint64()))
			clients.Go(func() {
				if err := readOnce(random, hubs, s, lengths[i]); err != nil {
					t.Errorf("stream %s: %v", s.ID, err)
				}
			})
		}
	}
	random := rand.New(rand.NewPCG(seed, 1000))
	sent := make([]int, streams)
	for open := streams; open > 0; {
		switch random.IntN(200) {
		case 0:
			r.goDown()
			time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
			r.comeUp()
		case 1:
			if err := r.MoveTopicPartition(gatewayTopic, int32(random.IntN(partitions)), int32(random.IntN(2))); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * metadataTTL) // the test's producer must hear of it
		}
		i := random.IntN(streams)
		if sent[i] == lengths[i] {
			continue
		}
		reply := part(fmt.Sprint("stream", i), strconv.Itoa(sent[i]))
		sent[i]++
		if reply.More = sent[i] < lengths[i]; !reply.More {
			open--
		}
		r.put(int32(i%partitions), reply)
		if random.IntN(10) == 0 {
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
		}
	}
	clients.Wait()
}

// readOnce is a client.
func readOnce(random *rand.Rand, hubs []*Hub, s Stream, length int) error {
	seen := 0
	var from *Cursor
	for connection := 0; ; connection++ {
		sub := hubs[random.IntN(len(hubs))].Follow(s, from)
		for leave := random.IntN(100); leave > 0; leave-- {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+random.IntN(60))*time.Second)
			e, err := sub.Next(ctx)
			cancel()
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				continue
			case errors.Is(err, io.EOF):
				return errors.New("no end before the end")
			case err != nil:
				return err
			}
			switch e.Kind {
			case KindReply:
				if got := string(e.Entry.Reply.Body); got != strconv.Itoa(seen) {
					return fmt.Errorf("reply %s instead of %d on connection %d", got, seen, connection)
				}
				seen++
				from = &e.Cursor
			case KindGap:
				return fmt.Errorf("gap %+v after %d replies", e.Gap, seen)
			case KindEnd:
				sub.Close()
				if seen != length {
					return fmt.Errorf("end after %d of %d replies", seen, length)
				}
				if ended, err := hubs[random.IntN(len(hubs))].Ended(context.Background(), s, e.Cursor); err != nil || !ended {
					return fmt.Errorf("end not known as such: %w", err)
				}
				return nil
			}
			if random.IntN(20) == 0 {
				time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
			}
		}
		sub.Close()
	}
}
