//go:build e2e

package main

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// checkCreated looks at the topics that a gateway has made as an operator sees
// them. kfake takes any setting; here the broker has to know it.
func checkCreated(t testing.TB, brokers []string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(t.Context(), "osmosis.replies", "orders")
	if err != nil {
		t.Fatal(err)
	}
	if replies, requests := len(topics["osmosis.replies"].Partitions), len(topics["orders"].Partitions); replies != 32 || requests != 8 {
		t.Errorf("%d partitions for replies, %d for requests, want 32 and 8", replies, requests)
	}
	all, err := admin.DescribeTopicConfigs(t.Context(), "osmosis.replies")
	if err == nil {
		err = all[0].Err
	}
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete", "retention.ms": "86400000"}
	for _, c := range all[0].Configs {
		if value, ok := want[c.Key]; ok && c.MaybeValue() != value {
			t.Errorf("reply topic: %s is %s, want %s", c.Key, c.MaybeValue(), value)
		}
		delete(want, c.Key)
	}
	if len(want) > 0 {
		t.Errorf("reply topic: the broker does not tell %v", want)
	}
}
