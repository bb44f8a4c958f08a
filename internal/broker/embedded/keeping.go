package embedded

import (
	"strconv"
	"time"
)

// keeping is for how long a topic's records are kept.
type keeping struct {
	age   time.Duration // 0: for ever
	bytes int64         // of each partition; below 0: any number
	// long: by its own setting, records are kept for longer than the broker
	// keeps those of other topics.
	long bool
}

// longShare divides MaxBytes: the part that topics whose records are kept for
// long have for sure, and beyond which they are the first to give up records.
const longShare = 4

// keeping reads the settings of a topic. What is not set there is the broker's.
func (j *janitor) keeping(topic string) keeping {
	k := keeping{age: j.config.Retention, bytes: -1}
	info := j.cluster.TopicInfo(topic)
	if info == nil {
		return k
	}
	if n, set := number(info.Configs["retention.bytes"]); set {
		k.bytes = n
	}
	if n, set := number(info.Configs["retention.ms"]); set {
		k.age = max(milliseconds(n), 0)
		if n == 0 {
			k.age = 1 // all but the newest record
		}
		k.long = j.config.Retention > 0 && (k.age == 0 || k.age > j.config.Retention)
	}
	return k
}

// milliseconds is a duration, the longest one if there are too many.
func milliseconds(n int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(n, most)) * time.Millisecond
}

// number reads a setting; set: there is one.
func number(value *string) (n int64, set bool) {
	if value == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(*value, 10, 64)
	return n, err == nil
}
