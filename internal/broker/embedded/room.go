package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// keepFree is how much of the disk is left free by default, in bytes: what is
// written besides records has its place there, such as commits and topics.
const keepFree = 32 << 20

// restAfterFailure is how long records are refused after a write failed.
const restAfterFailure = 2 * time.Second

// room keeps records out while they could not be written.
//
// kfake tells a producer that a write failed, but by then it has noted the
// batch's sequence: the same batch, sent again as every idempotent producer
// does, counts as a duplicate and is acknowledged without being anywhere. So
// records are refused before a disk is full, and where a write fails all the
// same, what its producer sends after that is refused until it takes a new id
// or epoch.
//
// The refusal is NotEnoughReplicas with a message: clients know that the record
// is not in the log and that it may be sent again later.
type room struct {
	disk      disk
	directory string
	keep      int64 // bytes
	logger    *zap.Logger
	free      func(directory string) (bytes int64, known bool)
	drop      func() // all connections; set before the cluster handles requests

	mu      sync.Mutex
	reason  string          // why records are refused; empty: they are not
	failure error           // of a write, until one went well
	failed  time.Time       // when that was
	trial   bool            // whether the request at hand shows if writing works again
	at      []producer      // whose batches the cluster has at hand
	broken  map[int64]int16 // producer id → newest epoch that a write failed for
	unsaved bool            // whether a write of any kind has failed
}

// producer is who sent a batch.
type producer struct {
	id    int64
	epoch int16
}

func newRoom(c Config) *room {
	keep := c.KeepFree
	if keep == 0 {
		keep = keepFree
	}
	return &room{
		disk: c.disk, directory: c.Directory, keep: keep, logger: c.Logger, free: freeBytes,
		broken: make(map[int64]int16),
	}
}

// install has all produce requests pass by before the cluster handles them,
// one at a time.
func (r *room) install(cluster *kfake.Cluster) {
	cluster.ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
		produce, ok := q.(*kmsg.ProduceRequest)
		if !ok {
			return nil, nil, false
		}
		code, message := r.admit(produce)
		if code == nil {
			return nil, nil, false
		}
		cluster.KeepControl()
		if produce.Acks == 0 {
			return nil, nil, true
		}
		return refusal(produce, code, message), nil, true
	})
}

// admit tells whether a request may go on to the cluster, and otherwise what
// its producer is told.
func (r *room) admit(produce *kmsg.ProduceRequest) (*kerr.Error, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trial {
		r.failure, r.trial = nil, false // the request before went well
	}
	r.at = r.at[:0]
	var size int64
	var senders []producer
	for _, t := range produce.Topics {
		for _, p := range t.Partitions {
			size += int64(len(p.Records))
			sender, ok := producerOf(p.Records)
			if !ok {
				continue
			}
			if epoch, ok := r.broken[sender.id]; ok && sender.epoch <= epoch {
				return kerr.UnknownProducerID, "an earlier batch of this producer could not be written to the disk, and what it sent since then is not known"
			}
			senders = append(senders, sender)
		}
	}
	r.tell(r.refuse(size))
	if r.reason != "" {
		return kerr.NotEnoughReplicas, r.reason
	}
	r.at, r.trial = senders, r.failure != nil
	return nil, ""
}

// tell logs when records begin to be refused, and when that is over.
func (r *room) tell(reason string) {
	switch {
	case reason != "" && r.reason == "":
		r.logger.Error("embedded broker takes no records", zap.String("reason", reason), zap.String("directory", r.directory))
	case reason == "" && r.reason != "":
		r.logger.Info("embedded broker takes records again", zap.String("directory", r.directory))
	}
	r.reason = reason
}

// refuse says why a request of so many bytes is refused; empty: it is not.
func (r *room) refuse(size int64) string {
	if free, known := r.free(r.directory); known && free < r.keep+2*size {
		return fmt.Sprintf("the disk is full: %d MiB are free and %d MiB are kept free; make room, or shorten the retention", free>>20, r.keep>>20)
	}
	if r.failure != nil && time.Since(r.failed) < restAfterFailure {
		return fmt.Sprintf("writing to the disk failed: %v", r.failure)
	}
	return ""
}

// heed looks at a line of the cluster's log. It comes while the cluster handles
// the request that admit saw last.
func (r *room) heed(format string, args []any) {
	if !strings.HasPrefix(format, "persist ") && !strings.HasPrefix(format, "save session state") {
		return
	}
	failure := errors.New("unknown")
	for _, a := range args {
		if err, ok := a.(error); ok {
			failure = err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unsaved = true
	switch {
	case strings.HasPrefix(format, "persist group entry"):
		r.trim(groupsLog)
		return
	case strings.HasPrefix(format, "persist pid entry"):
		r.trim(producersLog)
		return
	case !strings.HasPrefix(format, "persist batch"):
		return
	}
	r.failure, r.failed, r.trial = failure, time.Now(), false
	for _, p := range r.at {
		if epoch, ok := r.broken[p.id]; !ok || p.epoch > epoch {
			r.broken[p.id] = p.epoch
		}
	}
	r.tell(fmt.Sprintf("writing to the disk failed: %v", failure))
}

// trim removes half an entry from the end of a log, which kfake would append
// behind: after a crash, no later one would be read. kfake is about to
// acknowledge what it could not write, so nobody is there to be told.
func (r *room) trim(log string) {
	r.drop()
	if err := trimLog(r.disk, filepath.Join(dataDirectory(r.directory), log)); err != nil {
		r.logger.Error("embedded broker's log not repaired", zap.String("file", log), zap.Error(err))
	}
}

// unsynced is told when a directory could not be synced.
func (r *room) unsynced(err error) {
	r.logger.Error("embedded broker's topics not synced", zap.String("directory", r.directory), zap.Error(err))
}

// whole reports whether the cluster could write all that it has saved at its
// end, and nothing else: its sequences may be of a batch that was never written.
func (r *room) whole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.broken) == 0 && !r.unsaved
}

// producerOf gives who sent a batch; false where it is nobody that could send
// it again unnoticed.
func producerOf(batch []byte) (producer, bool) {
	if len(batch) < headerEnd || batch[magicAt] != 2 {
		return producer{}, false
	}
	p := producer{int64(binary.BigEndian.Uint64(batch[producerAt:])), int16(binary.BigEndian.Uint16(batch[epochAt:]))} //nolint:gosec // as it was written
	return p, p.id >= 0
}

// refusal answers all of a request with one error.
func refusal(produce *kmsg.ProduceRequest, code *kerr.Error, message string) kmsg.Response {
	answer := produce.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range produce.Topics {
		at := kmsg.NewProduceResponseTopic()
		at.Topic, at.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			ap := kmsg.NewProduceResponseTopicPartition()
			ap.Partition, ap.ErrorCode, ap.BaseOffset = p.Partition, code.Code, -1
			ap.ErrorMessage = &message
			at.Partitions = append(at.Partitions, ap)
		}
		answer.Topics = append(answer.Topics, at)
	}
	return answer
}
