package embedded

import (
	"encoding/binary"
	"hash/crc32"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// logTime gives records the broker's time in topics that are made with
// message.timestamp.type=LogAppendTime. kfake keeps the setting and does
// nothing about it, and the end of a stream depends on it: a reply counts that
// came before the stream expired by one clock, not by each worker's.
//
// Kafka marks such a batch with an attribute. Here that would break it, for
// kfake takes the attribute as leave to change the times behind the checksum;
// so it is also taken from producers, whom Kafka refuses it. Instead the times
// are moved: the newest of a batch becomes now, and the others keep their
// distance to it.
type logTime struct {
	cluster *kfake.Cluster

	mu    sync.Mutex
	known map[string]setting // by topic
}

// setting is what was read of a topic, and until when that is believed.
type setting struct {
	logAppend bool
	until     time.Time
}

// settingTTL is how long a change of the setting may go unnoticed.
const settingTTL = 10 * time.Second

// install has all produce requests pass by before the cluster handles them.
func (l *logTime) install() {
	l.known = make(map[string]setting)
	l.cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		produce, ok := r.(*kmsg.ProduceRequest)
		if !ok {
			return nil, nil, false
		}
		for _, t := range produce.Topics {
			logAppend := l.applies(t)
			for _, p := range t.Partitions {
				stamp(p.Records, logAppend, time.Now())
			}
		}
		return nil, nil, false // the cluster goes on with what was changed in place
	})
}

// applies tells whether a topic wants log time.
func (l *logTime) applies(t kmsg.ProduceRequestTopic) bool {
	key := t.Topic
	if key == "" { // the newest clients name it by its id
		key = string(t.TopicID[:])
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.known[key]
	if ok && now.Before(s.until) {
		return s.logAppend
	}
	info := l.cluster.TopicInfo(t.Topic)
	if t.Topic == "" {
		info = l.cluster.TopicIDInfo(t.TopicID)
	}
	if info == nil {
		return false // and the cluster refuses it; nothing is kept for names that clients make up
	}
	value := info.Configs["message.timestamp.type"]
	s = setting{logAppend: value != nil && *value == "LogAppendTime", until: now.Add(settingTTL)}
	l.known[key] = s
	return s.logAppend
}

// The places of a record batch's fields.
const (
	magicAt      = 16
	crcAt        = 17
	attributesAt = 21
	firstTimeAt  = 27
	lastTimeAt   = 35
	producerAt   = 43
	epochAt      = 51
	headerEnd    = 61

	timestampType = 1 << 3 // in attributes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp gives a batch the time now, in place, where logAppend says so, and
// takes the attribute away that claims a log's time. What is no batch, or one
// with a broken checksum, is left for the cluster to refuse.
func stamp(batch []byte, logAppend bool, now time.Time) {
	if len(batch) < headerEnd || batch[magicAt] != 2 {
		return
	}
	attributes := binary.BigEndian.Uint16(batch[attributesAt:])
	if !logAppend && attributes&timestampType == 0 {
		return
	}
	if binary.BigEndian.Uint32(batch[crcAt:]) != crc32.Checksum(batch[attributesAt:], castagnoli) {
		return
	}
	binary.BigEndian.PutUint16(batch[attributesAt:], attributes&^timestampType)
	if logAppend {
		first := int64(binary.BigEndian.Uint64(batch[firstTimeAt:]))
		last := int64(binary.BigEndian.Uint64(batch[lastTimeAt:]))
		binary.BigEndian.PutUint64(batch[firstTimeAt:], uint64(first+now.UnixMilli()-last))
		binary.BigEndian.PutUint64(batch[lastTimeAt:], uint64(now.UnixMilli()))
	}
	binary.BigEndian.PutUint32(batch[crcAt:], crc32.Checksum(batch[attributesAt:], castagnoli))
}
