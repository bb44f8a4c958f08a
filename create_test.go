package osmosis

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// made gives the topics of a cluster with their numbers of partitions.
func (h *house) made(addresses ...string) (map[string]int, *kadm.Client) {
	h.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addresses...))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(client.Close)
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	made := make(map[string]int)
	for name, topic := range topics {
		made[name] = len(topic.Partitions)
	}
	return made, admin
}

// settings gives those of a topic's settings that somebody has set.
func (h *house) settings(admin *kadm.Client, topic string) map[string]string {
	h.t.Helper()
	all, err := admin.DescribeTopicConfigs(h.t.Context(), topic)
	if err == nil {
		err = all[0].Err
	}
	if err != nil {
		h.t.Fatal(err)
	}
	set := make(map[string]string)
	for _, c := range all[0].Configs {
		if c.Source == kmsg.ConfigSourceDynamicTopicConfig {
			set[c.Key] = c.MaybeValue()
		}
	}
	return set
}

// The reply topic is made with 32 partitions, the time of the log, and a retention
// of 24 h, or as the configuration says. Request topics get 8 partitions, and
// the broker's own settings.
func TestTopicsThatAreMade(t *testing.T) {
	for name, test := range map[string]struct {
		app                 *App
		replies             string
		partitions, request int
		retention           string
	}{
		"by default": {new(App), "osmosis.replies", 32, 8, "86400000"},
		"as configured": {&App{
			Create:  &Create{Partitions: 3},
			Replies: &Replies{Topic: "answers", Partitions: 5, Retention: caddyDuration(72 * time.Hour)},
		}, "answers", 5, 3, "259200000"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			test.app.Kafka = h.kafka().ListenAddrs()
			h.load(test.app, &Handler{Topic: testTopic})
			h.do("POST", "/orders").want(t, 202)
			made, admin := h.made(test.app.Kafka...)
			if made[test.replies] != test.partitions || made[testTopic] != test.request {
				t.Errorf("partitions: %v", made)
			}
			want := map[string]string{"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete", "retention.ms": test.retention}
			if got := h.settings(admin, test.replies); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("settings of the reply topic: %v, want %v", got, want)
			}
			if got := h.settings(admin, testTopic); len(got) > 0 {
				t.Errorf("settings of the request topic: %v", got)
			}
		})
	}
}

// On the embedded broker the log's time counts too; how long replies are kept is
// for its janitor to say.
func TestTopicsOfTheEmbeddedBroker(t *testing.T) {
	h := newHouse(t)
	h.load(&App{Embedded: &Embedded{Directory: filepath.Join(h.home, "kafka"), Listen: "127.0.0.1:0"}}, &Handler{Topic: testTopic})
	h.do("POST", "/orders").want(t, 202)
	made, admin := h.made(only[*inside](t, insides).client.Addresses())
	if made[defaultReplies] != 32 || made[testTopic] != 8 {
		t.Errorf("partitions: %v", made)
	}
	if got := h.settings(admin, defaultReplies); fmt.Sprint(got) != "map[message.timestamp.type:LogAppendTime]" {
		t.Errorf("settings of the reply topic: %v", got)
	}
}

// With create off no topic is made, for requests, replies, claims or cancellations;
// each is used as it is, once it is there.
func TestCreateOff(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka()
	route := &Handler{Topic: testTopic, Idempotency: caddy.Duration(time.Hour)}
	h.load(&App{Kafka: cluster.ListenAddrs(), Create: &Create{Off: true}, ProduceTimeout: caddyDuration(500 * time.Millisecond)}, route)
	h.do("POST", "/orders").want(t, 503)
	h.do("POST", "/orders", "Idempotency-Key", "k").want(t, 503)
	if made, _ := h.made(cluster.ListenAddrs()...); len(made) > 0 {
		t.Errorf("made: %v", made)
	}
	_, admin := h.made(cluster.ListenAddrs()...)
	if _, err := admin.CreateTopics(t.Context(), 2, 1, nil, testTopic, defaultReplies); err != nil {
		t.Fatal(err)
	}
	var location string
	h.eventually("202", func() bool {
		a := h.do("POST", "/orders")
		location = a.Header.Get("Location")
		return a.StatusCode == 202
	})
	h.do("DELETE", location).want(t, 200, "cancelled")
	h.do("POST", "/orders", "Idempotency-Key", "k").want(t, 503)
	made, _ := h.made(cluster.ListenAddrs()...)
	var names []string
	for name := range made {
		names = append(names, name)
	}
	if slices.Sort(names); fmt.Sprint(names) != fmt.Sprint([]string{testTopic, defaultReplies}) || made[testTopic] != 2 || made[defaultReplies] != 2 {
		t.Errorf("made: %v", made)
	}
}
