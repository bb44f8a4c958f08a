package embedded

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// bounds gives where a topic's partition 0 begins and ends.
func bounds(t *testing.T, admin *kadm.Client, topic string) (start, end int64) {
	t.Helper()
	starts, err := admin.ListStartOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := admin.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := starts.Lookup(topic, 0)
	e, _ := ends.Lookup(topic, 0)
	if err := errors.Join(s.Err, e.Err); err != nil {
		t.Fatal(err)
	}
	return s.Offset, e.Offset
}

// kfake's cleaner would take all records that are older than a week, the newest
// too.
func TestKfakesCleanerFindsNothingToDo(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	client, admin := connect(t, b)
	defer client.Close()
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		produce(t, client, &kgo.Record{Topic: "orders", Timestamp: time.Now().Add(-30 * 24 * time.Hour)})
	}
	b.cluster.ApplyRetention()
	b.cluster.Compact()
	if start, end := bounds(t, admin, "orders"); start != 0 || end != 5 {
		t.Errorf("%d to %d are left of 0 to 5", start, end)
	}
	// And it never comes: a directory may be older than the refusals below.
	configs, err := admin.DescribeBrokerConfigs(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "log.cleaner.backoff.ms" && c.MaybeValue() == inert[c.Key] {
			return
		}
	}
	t.Errorf("the cleaner comes: %v", configs[0].Configs)
}

func TestSettingsThatWakeTheCleanerAreRefused(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	client, admin := connect(t, b)
	defer client.Close()
	harmless := map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "max.message.bytes": kadm.StringPtr("1000000")}
	if made, err := admin.CreateTopic(t.Context(), 1, 1, harmless, "orders"); err != nil || made.Err != nil {
		t.Fatal(err, made.Err)
	}

	for _, setting := range [][2]string{
		{"cleanup.policy", "compact"}, {"cleanup.policy", "delete,compact"},
	} {
		name, value := setting[0], setting[1]
		wantRefusal := func(doing string, err error, message string) {
			t.Helper()
			if !errors.Is(err, kerr.PolicyViolation) || !strings.Contains(message, name) || !strings.Contains(message, "leave the setting out") {
				t.Errorf("%s with %s=%s: %v, %q", doing, name, value, err, message)
			}
		}
		made, err := admin.CreateTopics(t.Context(), 1, 1, map[string]*string{name: &value}, "state")
		if err != nil {
			t.Fatal(err)
		}
		wantRefusal("create a topic", made["state"].Err, made["state"].ErrMessage)
		for op, alter := range map[kadm.IncrementalOp]string{kadm.SetConfig: "set", kadm.AppendConfig: "append"} {
			altered, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: op, Name: name, Value: &value}}, "orders")
			if err != nil {
				t.Fatal(err)
			}
			wantRefusal(alter, altered[0].Err, altered[0].ErrMessage)
		}
		stated, err := admin.AlterTopicConfigsState(t.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, "orders")
		if err != nil {
			t.Fatal(err)
		}
		wantRefusal("state", stated[0].Err, stated[0].ErrMessage)
	}
	topics, err := admin.ListTopics(t.Context())
	if err != nil || topics.Has("state") {
		t.Errorf("a topic was made all the same: %v, %v", topics.Names(), err)
	}
	for name, value := range b.cluster.TopicInfo("orders").Configs {
		if wanted := harmless[name]; wanted == nil || *wanted != *value {
			t.Errorf("the topic has %s=%s", name, *value)
		}
	}

	// To take one back, and what has nothing to do with it, is not refused.
	altered, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{
		{Op: kadm.DeleteConfig, Name: "retention.ms"}, {Op: kadm.SetConfig, Name: "max.message.bytes", Value: kadm.StringPtr("2000000")},
	}, "orders")
	if err != nil || altered[0].Err != nil {
		t.Error(err, altered)
	}
}

// The broker's settings keep the cleaner away, and one change of them all at
// once would take them back.
func TestTheBrokersOwnSettingsStand(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	client, admin := connect(t, b)
	defer client.Close()
	change := []kadm.AlterConfig{{Name: "log.retention.ms", Value: kadm.StringPtr("1000")}}
	altered, err := admin.AlterBrokerConfigs(t.Context(), change, 0)
	if err != nil || !errors.Is(altered[0].Err, kerr.PolicyViolation) {
		t.Error(err, altered)
	}
	altered, err = admin.AlterBrokerConfigsState(t.Context(), change, 0)
	if err != nil || !errors.Is(altered[0].Err, kerr.PolicyViolation) {
		t.Error(err, altered)
	}
}

// Nothing is done of a request of which a part is refused, and every part is
// told so.
func TestARefusedRequestIsRefusedWhole(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	client, admin := connect(t, b)
	defer client.Close()
	r := kmsg.NewPtrCreateTopicsRequest()
	for name, policy := range map[string]string{"orders": "delete", "state": "compact"} {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
		setting := kmsg.NewCreateTopicsRequestTopicConfig()
		setting.Name, setting.Value = "cleanup.policy", &policy
		topic.Configs = append(topic.Configs, setting)
		r.Topics = append(r.Topics, topic)
	}
	answer, err := r.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range answer.Topics {
		want := map[string]int16{"orders": kerr.InvalidRequest.Code, "state": kerr.PolicyViolation.Code}[topic.Topic]
		if topic.ErrorCode != want || topic.ErrorMessage == nil {
			t.Errorf("topic %s was told %d, want %d", topic.Topic, topic.ErrorCode, want)
		}
	}
	if topics, err := admin.ListTopics(t.Context()); err != nil || len(topics) != 0 {
		t.Error(topics.Names(), err)
	}
}

func TestAClientsDeletionLeavesTheNewestRecord(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	client, admin := connect(t, b)
	defer client.Close()
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	remove := func(to int64) (low int64, err error) {
		t.Helper()
		var offsets kadm.Offsets
		offsets.AddOffset("orders", 0, to, -1)
		deleted, err := admin.DeleteRecords(t.Context(), offsets)
		if err != nil {
			t.Fatal(err)
		}
		at, _ := deleted.Lookup("orders", 0)
		return at.LowWatermark, at.Err
	}
	const toTheEnd = -1
	if low, err := remove(toTheEnd); low != 0 || err != nil {
		t.Errorf("of an empty partition: %d, %v", low, err)
	}
	for i := range int64(3) {
		for range 5 {
			produce(t, client, &kgo.Record{Topic: "orders"})
		}
		end := 5 * (i + 1)
		if low, err := remove(end - 3); low != end-3 || err != nil {
			t.Errorf("up to %d: %d, %v", end-3, low, err)
		}
		for _, to := range []int64{toTheEnd, end} {
			if low, err := remove(to); low != end-1 || err != nil {
				t.Errorf("up to %d of %d: %d, %v", to, end, low, err)
			}
		}
		if _, err := remove(end + 1); !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Errorf("beyond the end: %v", err)
		}
	}
	if start, end := bounds(t, admin, "orders"); start != 14 || end != 15 {
		t.Errorf("%d to %d are left, want the newest record", start, end)
	}
}
