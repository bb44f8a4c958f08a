package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	// readyTimeout bounds a start. It is 3 s on an idle machine.
	readyTimeout = 90 * time.Second
	// askEvery is the pause between two questions while a broker starts.
	askEvery = 100 * time.Millisecond
	// askTimeout bounds one question.
	askTimeout = 5 * time.Second
)

// ready asks the cluster until it serves: every listener accepts, every running
// broker is in the metadata, every partition has a leader, and the controller
// would create a topic. Coordinators may still be loading: that is part of what
// Kafka's clients must cope with, and not waited for.
func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	pause := time.NewTicker(askEvery)
	defer pause.Stop()
	for {
		err := c.ask(ctx)
		if err == nil {
			return nil
		}
		if dead := c.dead(); dead != nil {
			return dead
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for kafka to serve: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// ask is one round of ready.
func (c *Cluster) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()

	var running []string
	for i, b := range c.brokers {
		if b.process == nil {
			continue
		}
		running = append(running, address(c.nodes[i].ports[Plaintext]))
		for _, port := range c.nodes[i].ports {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address(port))
			if err != nil {
				return fmt.Errorf("dial a listener: %w", err)
			}
			conn.Close()
		}
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	// Each broker by itself: one that was just restarted may know less than the others.
	for _, addr := range running {
		client := &kafka.Client{Addr: kafka.TCP(addr), Transport: transport}
		if _, err := client.ApiVersions(ctx, &kafka.ApiVersionsRequest{}); err != nil {
			return fmt.Errorf("ask for versions: %w", err)
		}
		if err := complete(ctx, client, len(running)); err != nil {
			return err
		}
	}
	return creatable(ctx, &kafka.Client{Addr: kafka.TCP(running...), Transport: transport}, len(running))
}

// complete tells whether the metadata has all brokers and a leader of every partition.
func complete(ctx context.Context, client *kafka.Client, brokers int) error {
	m, err := client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return fmt.Errorf("ask for metadata: %w", err)
	}
	if len(m.Brokers) != brokers {
		return fmt.Errorf("%d brokers of %d are in the metadata", len(m.Brokers), brokers)
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if p.Error != nil {
				return fmt.Errorf("partition %d of topic %s: %w", p.ID, t.Name, p.Error)
			}
		}
	}
	return nil
}

// creatable asks the controller whether it would create a topic. It creates none.
func creatable(ctx context.Context, client *kafka.Client, replicas int) error {
	const topic = "kafkatest"
	r, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		ValidateOnly: true,
		Topics:       []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: min(replicas, 3)}},
	})
	if err != nil {
		return fmt.Errorf("ask the controller: %w", err)
	}
	if err := r.Errors[topic]; err != nil {
		return fmt.Errorf("ask the controller: %w", err)
	}
	return nil
}
