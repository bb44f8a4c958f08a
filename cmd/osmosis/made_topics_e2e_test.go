//go:build e2e

package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// TestSettingsOfMadeTopicsOnTheEmbeddedBroker looks at topics that a gateway makes on
// the way.
func TestSettingsOfMadeTopicsOnTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	global, address := embeddedBroker(t)
	settingsOfMadeTopics(t, global, []string{address})
}

// TestSettingsOfMadeTopicsOnRealKafka does the same on a cluster.
func TestSettingsOfMadeTopicsOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	settingsOfMadeTopics(t, "\t\tkafka "+strings.Join(cluster.Addresses(), " "), cluster.Addresses())
}

// settingsOfMadeTopics has one request fail and another one be cancelled, and compares
// the settings of the topics that this takes, as a stranger is told them.
func settingsOfMadeTopics(t *testing.T, global string, brokers []string) {
	t.Helper()
	g := newGateway(t, global, `	osmosis /fails orders {
		wait 1m
		deliver {
			attempts 1
			error "out of stock" 507
		}
	}
	osmosis /waits letters`)
	g.start()
	post := func(path string) *http.Response {
		t.Helper()
		response, err := http.Post(g.URL+path, "text/plain", strings.NewReader("one"))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response
	}
	if response := post("/fails"); response.StatusCode < 500 {
		t.Fatal(response.Status)
	}
	response := post("/waits")
	cancel, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, g.URL+response.Header.Get("Location"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err = http.DefaultClient.Do(cancel); err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response, err)
	}
	response.Body.Close()

	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	told, err := kadm.NewClient(client).DescribeTopicConfigs(t.Context(), "orders.dlq", "osmosis.control")
	if err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]string{"orders.dlq": "2592000000", "osmosis.control": "43200000"} { // 30 days, 12 hours
		settings, err := told.On(topic, nil)
		if err != nil || settings.Err != nil {
			t.Fatal(topic, err, settings.Err)
		}
		got := make(map[string]string)
		for _, c := range settings.Configs {
			got[c.Key] = c.MaybeValue()
		}
		if got["retention.ms"] != want || got["cleanup.policy"] != "delete" {
			t.Errorf("%s keeps records for %s ms by the policy %s, want %s and delete", topic, got["retention.ms"], got["cleanup.policy"], want)
		}
	}
}
