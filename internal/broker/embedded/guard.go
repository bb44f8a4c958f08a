package embedded

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// guard keeps clients from what would cost a partition its end.
//
// kfake cleans all topics every hour once a single one has retention settings
// or is compacted, and the others by its default of a week. It spares no
// newest record, nor does a client's DeleteRecords, and where a partition ends
// is written nowhere else: after a kill its offsets would begin at 0 again,
// below every commit, token and cursor. Compaction also rewrites a partition in
// place, which a kill in the middle does not survive.
//
// So kfake's cleaner is kept from ever coming, and a topic's retention is the
// janitor's to see to. Compaction is refused, with PolicyViolation and a message
// that says what to write instead, and nothing of a request is done that asks
// for it: it is not passed over in silence. DeleteRecords goes up to the newest
// record and answers how far.
//
// A deletion of a topic is noted before it begins, for recovery to finish it.
type guard struct {
	cluster   *kfake.Cluster
	disk      disk
	directory string
}

// inert are settings of kfake by which its cleaner has nothing to do and never
// comes, whatever a directory of an earlier version says of its topics.
var inert = map[string]string{
	"log.retention.ms":       "-1",
	"log.retention.bytes":    "-1",
	"log.cleaner.backoff.ms": "1000000000000", // 31 years; kfake takes no word for never
}

// install has the requests pass by before the cluster handles them.
func (g guard) install() {
	for key, answer := range map[kmsg.Key]func(kmsg.Request) kmsg.Response{
		kmsg.CreateTopics:            refuseTopics,
		kmsg.AlterConfigs:            refuseConfigs,
		kmsg.IncrementalAlterConfigs: refuseIncremental,
		kmsg.DeleteRecords:           g.spare,
		kmsg.DeleteTopics:            g.note,
	} {
		g.cluster.ControlKey(int16(key), func(q kmsg.Request) (kmsg.Response, error, bool) {
			a := answer(q)
			if a == nil {
				return nil, nil, false
			}
			g.cluster.KeepControl()
			return a, nil, true
		})
	}
}

// topicSetting says why a setting of a topic is refused; empty: it is not.
func topicSetting(name string, value *string) string {
	switch {
	case name == "retention.ms" || name == "retention.bytes":
		if n, set := number(value); value != nil && (!set || n < -1) {
			return fmt.Sprintf("%s=%s: write a whole number, or -1 for no limit", name, *value)
		}
	case name == "cleanup.policy" && value != nil && strings.Contains(*value, "compact"):
		return fmt.Sprintf("%s=%s: the embedded broker does not compact topics; leave the setting out, or use a Kafka cluster", name, *value)
	}
	return ""
}

// ownSetting is why no setting of the broker can be changed by a client.
const ownSetting = "the embedded broker's own settings are those of the process that it runs in"

// verdict is what one part of a refused request is told, given why that part is
// refused; empty: another one is.
func verdict(reason string) (code int16, message *string) {
	if reason == "" {
		other := "nothing was done, since another part of the request is refused; send this one without it"
		return kerr.InvalidRequest.Code, &other
	}
	return kerr.PolicyViolation.Code, &reason
}

// inTopic gives the first reason to refuse a topic's settings; empty: none.
func inTopic[C any](settings []C, read func(C) (name string, value *string)) string {
	for _, c := range settings {
		if reason := topicSetting(read(c)); reason != "" {
			return reason
		}
	}
	return ""
}

// inResource does the same for a topic or another thing that has settings.
func inResource[C any](kind kmsg.ConfigResourceType, settings []C, read func(C) (name string, value *string)) string {
	switch kind {
	case kmsg.ConfigResourceTypeBroker:
		return ownSetting
	case kmsg.ConfigResourceTypeTopic:
		return inTopic(settings, read)
	}
	return ""
}

// refuseTopics answers a request for topics of which one has a refused setting;
// nil: none has.
func refuseTopics(q kmsg.Request) kmsg.Response {
	request := q.(*kmsg.CreateTopicsRequest)
	answer := request.ResponseKind().(*kmsg.CreateTopicsResponse)
	refused := false
	for _, t := range request.Topics {
		reason := inTopic(t.Configs, func(c kmsg.CreateTopicsRequestTopicConfig) (string, *string) { return c.Name, c.Value })
		refused = refused || reason != ""
		at := kmsg.NewCreateTopicsResponseTopic()
		at.Topic = t.Topic
		at.ErrorCode, at.ErrorMessage = verdict(reason)
		answer.Topics = append(answer.Topics, at)
	}
	if !refused {
		return nil
	}
	return answer
}

// refuseConfigs does the same for settings that are given all at once.
func refuseConfigs(q kmsg.Request) kmsg.Response {
	request := q.(*kmsg.AlterConfigsRequest)
	answer := request.ResponseKind().(*kmsg.AlterConfigsResponse)
	refused := false
	for _, r := range request.Resources {
		reason := inResource(r.ResourceType, r.Configs, func(c kmsg.AlterConfigsRequestResourceConfig) (string, *string) { return c.Name, c.Value })
		refused = refused || reason != ""
		at := kmsg.NewAlterConfigsResponseResource()
		at.ResourceType, at.ResourceName = r.ResourceType, r.ResourceName
		at.ErrorCode, at.ErrorMessage = verdict(reason)
		answer.Resources = append(answer.Resources, at)
	}
	if !refused {
		return nil
	}
	return answer
}

// refuseIncremental does the same for changes of single settings. Taking one
// back is not refused: the directory may be older than this guard.
func refuseIncremental(q kmsg.Request) kmsg.Response {
	request := q.(*kmsg.IncrementalAlterConfigsRequest)
	answer := request.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	refused := false
	for _, r := range request.Resources {
		reason := inResource(r.ResourceType, r.Configs, func(c kmsg.IncrementalAlterConfigsRequestResourceConfig) (string, *string) {
			if c.Op == kmsg.IncrementalAlterConfigOpSet || c.Op == kmsg.IncrementalAlterConfigOpAppend {
				return c.Name, c.Value
			}
			return "", nil
		})
		refused = refused || reason != ""
		at := kmsg.NewIncrementalAlterConfigsResponseResource()
		at.ResourceType, at.ResourceName = r.ResourceType, r.ResourceName
		at.ErrorCode, at.ErrorMessage = verdict(reason)
		answer.Resources = append(answer.Resources, at)
	}
	if !refused {
		return nil
	}
	return answer
}

// spare moves the end of what a client deletes before the newest record. It
// answers nothing: the cluster goes on with what was changed in place.
func (g guard) spare(q kmsg.Request) kmsg.Response {
	for _, t := range q.(*kmsg.DeleteRecordsRequest).Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			const toTheEnd = -1
			info := g.cluster.PartitionInfo(t.Topic, p.Partition)
			if info == nil || info.HighWatermark == info.LogStartOffset {
				continue
			}
			if p.Offset == toTheEnd || p.Offset == info.HighWatermark {
				p.Offset = info.HighWatermark - 1
			}
		}
	}
	return nil
}

// note writes down which topics a client deletes. If that fails, nothing is deleted.
func (g guard) note(q kmsg.Request) kmsg.Response {
	request := q.(*kmsg.DeleteTopicsRequest)
	var ids [][16]byte
	add := func(name *string, id [16]byte) {
		var info *kfake.TopicInfo
		if name != nil {
			info = g.cluster.TopicInfo(*name)
		} else {
			info = g.cluster.TopicIDInfo(id)
		}
		if info != nil {
			ids = append(ids, info.TopicID)
		}
	}
	for _, name := range request.TopicNames { // up to version 5
		add(&name, [16]byte{})
	}
	for _, t := range request.Topics {
		if t.Topic != nil && t.TopicID != [16]byte{} {
			return nil // which the cluster refuses
		}
		add(t.Topic, t.TopicID)
	}
	if len(ids) == 0 || noteDeletions(g.disk, g.directory, ids) == nil {
		return nil
	}
	answer := request.ResponseKind().(*kmsg.DeleteTopicsResponse)
	refuse := func(name *string, id [16]byte) {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = name, id, kerr.KafkaStorageError.Code
		answer.Topics = append(answer.Topics, t)
	}
	for _, name := range request.TopicNames {
		refuse(&name, [16]byte{})
	}
	for _, t := range request.Topics {
		refuse(t.Topic, t.TopicID)
	}
	return answer
}
