package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// Kafka starts one real broker and gives its address. It lives to the end of the run.
func (r *Rig) Kafka(ctx context.Context) (address string, err error) {
	r.Say("starting Kafka")
	b := &bed{rig: r, ctx: ctx}
	defer func() {
		// kafkatest ends a test by Fatalf, which does not return.
		if p := recover(); p != nil {
			failure, ok := p.(bedFailure)
			if !ok {
				panic(p)
			}
			err = errors.New(string(failure))
		}
	}()
	cluster := kafkatest.Start(b, kafkatest.Options{Properties: map[string]string{
		// The broker under load is to use what the machine has.
		"num.network.threads": "2",
		"num.io.threads":      "4",
	}})
	return cluster.Addresses()[0], nil
}

// CreateTopics makes topics with the given number of partitions.
func (r *Rig) CreateTopics(ctx context.Context, address string, partitions int, names ...string) error {
	client := &kafka.Client{Addr: kafka.TCP(address)}
	request := &kafka.CreateTopicsRequest{}
	for _, name := range names {
		request.Topics = append(request.Topics, kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: 1})
	}
	answer, err := client.CreateTopics(ctx, request)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for name, err := range answer.Errors {
		if err != nil {
			return fmt.Errorf("create topic %q: %w", name, err)
		}
	}
	return nil
}

// bed is the part of a test that kafkatest needs, for a program that is none.
type bed struct {
	testing.TB // nil; what kafkatest does not use would panic
	rig        *Rig
	ctx        context.Context
}

// bedFailure is what Fatalf throws.
type bedFailure string

func (*bed) Helper() {}

func (b *bed) TempDir() string {
	folder, err := os.MkdirTemp(b.rig.folder, "kafka-")
	if err != nil {
		b.Fatalf("make a folder for Kafka: %v", err)
	}
	return folder
}

func (b *bed) Cleanup(do func())          { b.rig.onEnd(do) }
func (b *bed) Context() context.Context   { return b.ctx }
func (*bed) Failed() bool                 { return false }
func (b *bed) Logf(f string, args ...any) { b.rig.Say(f, args...) }

func (*bed) Fatalf(format string, args ...any) { panic(bedFailure(fmt.Sprintf(format, args...))) }
