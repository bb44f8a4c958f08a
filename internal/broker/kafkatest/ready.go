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
	// readyTimeout bounds a start, which takes 2 s on an idle machine.
	readyTimeout = 90 * time.Second
	// askEvery is the pause between two questions while a broker starts.
	askEvery = 100 * time.Millisecond
	// askTimeout bounds one question.
	askTimeout = 5 * time.Second
)

// ready asks the cluster until it serves: every listener accepts, and every
// running broker knows of all of them and of a leader for every partition. A
// broker is in the metadata only after the controller let it in, so there is a
// controller too. Coordinators may still be loading: that is part of what
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
	return nil
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
