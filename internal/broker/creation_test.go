package broker

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A question of an old version cannot say that it is not to make the topic, so
// a broker that knows no newer one is not asked.
func TestNoQuestionMayMakeATopic(t *testing.T) {
	const saysWhetherToCreate = 4
	metadata := (&kmsg.MetadataRequest{}).Key()
	for most, refused := range map[int16]bool{saysWhetherToCreate - 1: true, saysWhetherToCreate: false} {
		bubble(t, map[bool]string{true: "of a version that cannot say no", false: "of one that can"}[refused], func(t *testing.T) {
			versions := kversion.V0_11_0()
			versions.SetMaxKeyVersion(metadata, most)
			w := newWorld(t, kfake.MaxVersions(versions), kfake.AllowAutoTopicCreation())
			w.ControlKey(metadata, func(q kmsg.Request) (kmsg.Response, error, bool) {
				w.KeepControl()
				r := q.(*kmsg.MetadataRequest)
				// kfake makes no topic for the oldest versions, as brokers do: that the question is put at all counts.
				if len(r.Topics) > 0 && (r.Version < saysWhetherToCreate || r.AllowAutoTopicCreation) {
					t.Errorf("asked in version %d for a topic, and allowed its creation", r.Version)
				}
				return nil, nil, false
			})
			_, err := w.Topic(t.Context(), "orders")
			if errors.Is(err, ErrVersion) != refused {
				t.Errorf("got %v", err)
			}
			if w.TopicInfo("orders") != nil {
				t.Error("asking made the topic")
			}
		})
	}
}
