package embedded

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
)

// sequencesFile is where kfake writes the producers' sequences at its end.
const sequencesFile = "seq_windows.json"

// producerState is what the log of producers says of one.
type producerState struct {
	epoch         int16
	transactional bool
}

// producerEntry is an entry of the log of producers.
type producerEntry struct {
	Type            string `json:"type"`
	ID              int64  `json:"pid"`
	Epoch           int16  `json:"epoch"`
	TransactionalID string `json:"txid,omitempty"`
}

// sequences are the last batches of a producer in a partition, in the way that
// kfake keeps them: a batch that comes again is recognised among the last five.
type sequences struct {
	entries [5]sequence
	at      int
	count   int
	epoch   int16
	next    int32
}

type sequence struct {
	First  int32 `json:"first_seq"`
	Next   int32 `json:"next_seq"`
	Offset int64 `json:"offset"`
}

// sequencesEntry is one of kfake's file of sequences.
type sequencesEntry struct {
	ID        int64       `json:"pid"`
	Topic     string      `json:"topic"`
	Partition int32       `json:"partition"`
	Entries   [5]sequence `json:"entries"`
	Count     int         `json:"count"`
	At        int         `json:"at"`
	Epoch     int16       `json:"epoch"`
	Seen      bool        `json:"seen"`
	Next      int32       `json:"next_seq"`
}

// add notes a batch of the log.
func (s *sequences) add(b batch) {
	if s.count == 0 || s.epoch != b.epoch {
		*s = sequences{epoch: b.epoch}
	}
	s.next = int32((int64(b.sequence) + int64(b.records)) % math.MaxInt32) //nolint:gosec // within 31 bits
	s.entries[s.at] = sequence{b.sequence, s.next, b.offset}
	s.at = (s.at + 1) % len(s.entries)
	s.count = min(s.count+1, len(s.entries))
}

// readProducers reads the log of producers.
func (r *recovery) readProducers() error {
	r.producers = make(map[int64]*producerState)
	log, err := read(r.disk, filepath.Join(r.directory, producersLog))
	if err != nil {
		return err
	}
	texts, _ := entries(log)
	for _, text := range texts {
		var e producerEntry
		if err := json.Unmarshal(text, &e); err != nil {
			continue // as kfake does
		}
		if e.Type == "init" {
			r.producers[e.ID] = &producerState{e.Epoch, e.TransactionalID != ""}
		} else if p := r.producers[e.ID]; p != nil {
			p.epoch = e.Epoch
		}
	}
	return nil
}

// raiseEpoch keeps a producer from going on with the epoch it has.
func (r *recovery) raiseEpoch(p producer) error {
	epoch := p.epoch
	if known := r.producers[p.id]; known != nil && known.epoch > epoch {
		return nil
	}
	if epoch < math.MaxInt16 {
		epoch++
	}
	return r.noteProducer(producerEntry{Type: "timeout", ID: p.id, Epoch: epoch}) // as if it had taken too long
}

// noteProducer writes an entry to the log of producers.
func (r *recovery) noteProducer(e producerEntry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := appendTo(r.disk, filepath.Join(r.directory, producersLog), entry(text)); err != nil {
		return fmt.Errorf("write the epoch of a producer: %w", err)
	}
	if known := r.producers[e.ID]; known != nil {
		known.epoch = e.Epoch
	} else {
		r.producers[e.ID] = &producerState{epoch: e.Epoch}
	}
	return nil
}

// writeProducers writes the sequences that the logs hold, for kfake to read. It
// takes those of producers that it knows; a client may have begun an epoch, or
// even an id, without asking. And the end of a transaction that took too long
// is of a new epoch, which is in the log of producers only after it.
func (r *recovery) writeProducers(logs []*partitionLog) error {
	file := struct {
		Version int              `json:"version"`
		Windows []sequencesEntry `json:"windows"`
	}{Version: formatVersion}
	for _, l := range logs {
		for id, epoch := range l.ended {
			if known := r.producers[id]; known != nil && known.epoch < epoch {
				if err := r.noteProducer(producerEntry{Type: "timeout", ID: id, Epoch: epoch}); err != nil {
					return err
				}
			}
		}
		for id, s := range l.sequences {
			if known := r.producers[id]; known == nil || known.epoch < s.epoch && !known.transactional {
				if err := r.noteProducer(producerEntry{Type: "init", ID: id, Epoch: s.epoch}); err != nil {
					return err
				}
			}
			file.Windows = append(file.Windows, sequencesEntry{
				ID: id, Topic: l.topic, Partition: l.partition,
				Entries: s.entries, Count: s.count, At: s.at, Epoch: s.epoch, Seen: true, Next: s.next,
			})
		}
	}
	text, err := json.Marshal(file)
	if err != nil {
		return err
	}
	if err := replace(r.disk, filepath.Join(r.directory, sequencesFile), text); err != nil {
		return fmt.Errorf("write the producers' sequences: %w", err)
	}
	return nil
}
