package rig

import (
	"context"
	"fmt"
)

// Kind is what is compared.
type Kind int

// The kinds, in the order in which tables show them.
const (
	// Respond is Caddy's own `respond 202`, which queues nothing.
	Respond Kind = iota
	// Osmosis is this module, with its defaults.
	Osmosis
	// Naive is a Caddy handler around franz-go's ProduceSync.
	Naive
	// GroupCommit is net/http with kafka-go's produce calls.
	GroupCommit
	// Franz is net/http with franz-go.
	Franz
	// Writer is net/http with kafka-go's Writer.
	Writer
	// Idle is Caddy with streams on which nothing ever comes. It queues nothing.
	Idle
)

// Title is what tables call a kind.
func (k Kind) Title() string {
	return [...]string{
		"Caddy `respond 202`", "**Osmosis**", "naive Caddy handler, franz-go",
		"net/http, kafka-go group commit", "net/http, franz-go", "net/http, kafka-go Writer",
		"Caddy, a stream on which nothing comes",
	}[k]
}

// barePartitions is how many partitions the reply topics of the bare servers have.
const barePartitions = 8

// Contest says what to start.
type Contest struct {
	// Kafka is the broker's address.
	Kafka string
	// Partitions is the partition count of request topics.
	Partitions int
	// Replies has the bare servers serve streams. Osmosis always does.
	Replies bool
	// Suffix tells processes of one kind apart: it goes behind the names of
	// their topics. Default: none.
	Suffix string
}

// Topic is the request topic that a kind uses.
func (c Contest) Topic(k Kind) string {
	return [...]string{"none", "osmosis", "naive", "group-commit", "franz-go", "writer", "none"}[k] + c.Suffix
}

// Contenders starts one process a kind, each with topics of its own. They all
// queue POST /orders, with the header X-Customer, where there is one, as the key.
func (r *Rig) Contenders(ctx context.Context, c Contest, kinds ...Kind) ([]*Process, error) {
	var all []*Process
	for _, k := range kinds {
		p, err := r.contender(ctx, c, k)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Before starts Osmosis out of a program that was built earlier from
// CaddyPackage, to compare what is there now with what was. It gives the request
// topic too.
func (r *Rig) Before(ctx context.Context, c Contest, program string) (p *Process, topic string, err error) {
	c.Suffix += "-before"
	topic = c.Topic(Osmosis)
	if err := r.CreateTopics(ctx, c.Kafka, c.Partitions, topic); err != nil {
		return nil, "", err
	}
	global, site := c.osmosis()
	p, err = r.caddy(ctx, program, Osmosis.Title()+" before", global, site)
	return p, topic, err
}

// osmosis gives the configuration of Osmosis.
func (c Contest) osmosis() (global, site string) {
	topic := c.Topic(Osmosis)
	global = fmt.Sprintf("\tosmosis {\n\t\tkafka %s\n\t\treplies %s-replies\n\t}", c.Kafka, topic)
	return global, fmt.Sprintf("\tosmosis /orders %s {\n\t\tkey {http.request.header.X-Customer}\n\t}", topic)
}

func (r *Rig) contender(ctx context.Context, c Contest, k Kind) (*Process, error) {
	topic, replies := c.Topic(k), c.Topic(k)+"-replies"
	if k != Respond && k != Idle {
		if err := r.CreateTopics(ctx, c.Kafka, c.Partitions, topic); err != nil {
			return nil, err
		}
	}
	switch k {
	case Respond:
		return r.Caddy(ctx, k.Title(), "", "\trespond /orders 202")
	case Idle:
		return r.Caddy(ctx, k.Title(), "", "\theader /orders Location /streams/any\n\trespond /orders 202\n\tidle_stream /streams/*")
	case Osmosis:
		global, site := c.osmosis()
		return r.Caddy(ctx, k.Title(), global, site)
	case Naive:
		return r.Caddy(ctx, k.Title(), "", "\tnaive /orders "+c.Kafka+" "+topic)
	}
	args := []string{"-kafka", c.Kafka, "-topic", topic}
	switch k {
	case GroupCommit:
		args = append(args, "-client", "kafka-go")
	case Franz:
		args = append(args, "-client", "franz-go")
	default:
		args = append(args, "-client", "writer")
	}
	if c.Replies {
		if err := r.CreateTopics(ctx, c.Kafka, barePartitions, replies); err != nil {
			return nil, err
		}
		args = append(args, "-replies", replies)
	}
	return r.Peer(ctx, k.Title(), "./bench/peers/bare", args...)
}
