package embedded

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// step is what a client asked for: first and last are how much was done to the
// disk before and after, and so after which crash it counts.
type step struct {
	first, last int
	what        any
}

type (
	topicMade struct {
		name       string
		id         [16]byte // once it is known
		partitions int32
	}
	topicGrown struct {
		name       string
		partitions int32
	}
	topicDeleted struct{ name string }
	batchSent    struct {
		sent
		offset int64 // once it is known
		at     time.Time
	}
	transactionEnded struct {
		commit   bool
		producer // of the next one
	}
	positionTaken struct {
		tp
		position
	}
	producerMade struct {
		producer
		transactional bool
	}
	// recovered is the first step after a crash: what was not answered is clear.
	recovered struct{ *expected }
	// timePassed is minutes, more than a transaction may take.
	timePassed struct{}
	// restarted is a stop and a start.
	restarted struct{}
)

// kept is a record that was acknowledged.
type kept struct {
	offset int64
	value  string
	at     time.Time
	hidden bool // aborted, or of a transaction that is open
}

// expected is what a broker has to hold.
type expected struct {
	topics    map[string]topicMade
	deleted   map[[16]byte]bool
	records   map[tp][]kept
	open      []batchSent
	last      map[tp]batchSent // the newest acknowledged batch, if it may come again
	positions map[tp]position

	// And what its clients know.
	producers     []producer
	sequences     map[ofProducer]int32
	transactional *producer // nil: it has to ask for an epoch
}

type ofProducer struct {
	id int64
	tp
}

func nothing() *expected {
	return &expected{
		topics: make(map[string]topicMade), deleted: make(map[[16]byte]bool), records: make(map[tp][]kept),
		last: make(map[tp]batchSent), positions: make(map[tp]position), sequences: make(map[ofProducer]int32),
	}
}

func (e *expected) clone() *expected {
	c := &expected{
		topics: maps.Clone(e.topics), deleted: maps.Clone(e.deleted), records: make(map[tp][]kept),
		open: slices.Clone(e.open), last: maps.Clone(e.last), positions: maps.Clone(e.positions),
		producers: slices.Clone(e.producers), sequences: maps.Clone(e.sequences), transactional: e.transactional,
	}
	for at, records := range e.records {
		c.records[at] = slices.Clone(records)
	}
	return c
}

// add does an acknowledged step.
func (e *expected) add(what any) {
	switch s := what.(type) {
	case topicMade:
		e.topics[s.name] = s
	case topicGrown:
		t := e.topics[s.name]
		t.partitions = s.partitions
		e.topics[s.name] = t
	case topicDeleted:
		e.deleted[e.topics[s.name].id] = true
		delete(e.topics, s.name)
		gone := func(at tp) bool { return at.topic == s.name }
		maps.DeleteFunc(e.records, func(at tp, _ []kept) bool { return gone(at) })
		maps.DeleteFunc(e.last, func(at tp, _ batchSent) bool { return gone(at) })
		maps.DeleteFunc(e.positions, func(at tp, _ position) bool { return gone(at) })
		maps.DeleteFunc(e.sequences, func(o ofProducer, _ int32) bool { return gone(o.tp) })
		e.open = slices.DeleteFunc(e.open, func(b batchSent) bool { return gone(b.tp) })
	case batchSent:
		for i, value := range s.values {
			e.records[s.tp] = append(e.records[s.tp], kept{s.offset + int64(i), value, s.at, s.transactional})
		}
		if s.transactional {
			e.open = append(e.open, s)
		}
		if s.id >= 0 {
			e.sequences[ofProducer{s.id, s.tp}] = s.sequence + int32(len(s.values))
		}
		if s.id >= 0 && !s.transactional {
			e.last[s.tp] = s
		} else {
			delete(e.last, s.tp)
		}
	case transactionEnded:
		e.end(s.commit)
		p := s.producer
		if p.epoch != e.transactional.epoch {
			maps.DeleteFunc(e.sequences, func(o ofProducer, _ int32) bool { return o.id == p.id })
		}
		e.transactional = &p
	case positionTaken:
		e.positions[s.tp] = s.position
	case producerMade:
		if s.transactional {
			e.end(false)
			e.transactional = &s.producer
			maps.DeleteFunc(e.sequences, func(o ofProducer, _ int32) bool { return o.id == s.id })
		} else {
			e.producers = append(e.producers, s.producer)
		}
	case timePassed, restarted:
		if e.open != nil {
			e.end(false)
			e.transactional = nil
		}
	case recovered:
		*e = *s.expected.clone()
	}
}

// end ends the open transaction.
func (e *expected) end(commit bool) {
	for _, b := range e.open {
		for i, k := range e.records[b.tp] {
			if commit && k.offset >= b.offset && k.offset < b.offset+int64(len(b.values)) {
				e.records[b.tp][i].hidden = false
			}
		}
	}
	e.open = nil
}

// check compares a broker with what is expected of it, given the step that was
// not answered when it crashed; nil: there was none.
func (e *expected) check(c crashClient, unclear any) error {
	topics, err := c.topics()
	if err != nil {
		return fmt.Errorf("read the topics: %w", err)
	}
	var errs []error
	deleting, _ := unclear.(topicDeleted)
	if t, there := topics[deleting.name]; there && t.TopicID != e.topics[deleting.name].id {
		delete(topics, deleting.name) // deleted, and made again after the crash before this one
	}
	for name, t := range topics {
		want, known := e.topics[name]
		made, making := unclear.(topicMade)
		switch {
		case !known && (!making || made.name != name):
			errs = append(errs, fmt.Errorf("topic %s is there again", name))
		case known && want.id != t.TopicID:
			errs = append(errs, fmt.Errorf("topic %s has another id", name))
		}
	}
	for name, want := range e.topics {
		t, there := topics[name]
		if !there {
			if deleting.name != name {
				errs = append(errs, fmt.Errorf("topic %s is gone", name))
			}
			continue
		}
		grown, growing := unclear.(topicGrown)
		if n := int32(len(t.Partitions)); n != want.partitions && (!growing || grown.name != name || n != grown.partitions) {
			errs = append(errs, fmt.Errorf("topic %s has %d partitions, want %d", name, n, want.partitions))
		}
		for p := range t.Partitions {
			at := tp{name, int32(p)}
			if err := e.checkPartition(c, at, t.TopicID, unclear); err != nil {
				errs = append(errs, fmt.Errorf("topic %s, partition %d: %w", name, p, err))
			}
		}
	}
	return errors.Join(append(errs, e.checkPositions(c, topics, unclear))...)
}

func (e *expected) checkPositions(c crashClient, topics map[string]kmsg.MetadataResponseTopic, unclear any) error {
	found, err := c.committed(topics)
	if err != nil {
		return fmt.Errorf("read the commits: %w", err)
	}
	var errs []error
	taking, _ := unclear.(positionTaken)
	deleting, _ := unclear.(topicDeleted)
	for at, want := range e.positions {
		if _, there := topics[at.topic]; !there && deleting.name == at.topic {
			continue
		}
		if got := found[at]; got != want && (taking.tp != at || got != taking.position) {
			errs = append(errs, fmt.Errorf("committed of %v is %.30v, acknowledged was %.30v", at, got, want))
		}
	}
	for at, got := range found {
		if _, want := e.positions[at]; !want && (taking.tp != at || got != taking.position) {
			errs = append(errs, fmt.Errorf("%v was committed by nobody: %.30v", at, got))
		}
	}
	return errors.Join(errs...)
}

func (e *expected) checkPartition(c crashClient, at tp, id [16]byte, unclear any) error {
	all, err := c.read(at, id)
	if err != nil {
		return err
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if all.start < 0 || all.start > all.end || all.stable != all.end {
		wrong("it goes from %d to %d, and to %d what is committed", all.start, all.end, all.stable)
	}
	sending, _ := unclear.(batchSent)
	ending, unclearEnd := unclear.(transactionEnded)
	records := e.records[at]
	end := int64(0)
	for _, k := range records {
		end = k.offset + 1
		newest := end == all.end // the end of a transaction may be behind it
		got, there := all.records[k.offset]
		switch {
		case there && got != k.value:
			wrong("offset %d holds %.20q, acknowledged was %.20q", k.offset, got, k.value)
		case !there && (newest || time.Since(k.at) < crashRetention):
			wrong("offset %d of %d to %d, acknowledged %v ago, is gone: %.20q", k.offset, all.start, all.end, time.Since(k.at), k.value)
		}
		visible, seen := all.visible[k.offset]
		open := slices.ContainsFunc(e.open, func(b batchSent) bool { return b.tp == at && b.offset <= k.offset })
		switch {
		case seen && visible != k.value:
			wrong("offset %d holds %.20q among what is committed", k.offset, visible)
		case there && seen == k.hidden && !(open && unclearEnd && ending.commit):
			wrong("offset %d is seen among what is committed: %t", k.offset, seen)
		}
	}
	if all.end < end {
		wrong("it ends at %d, and acknowledged was up to %d", all.end, end)
	}
	// What is there besides can only be what was not answered, all of it or none.
	var more []string
	for o := end; o < all.end; o++ {
		if value, there := all.records[o]; there {
			more = append(more, value)
		}
		if _, seen := all.visible[o]; seen && sending.transactional {
			wrong("offset %d of an open transaction is seen among what is committed", o)
		}
	}
	if len(more) > 0 && (sending.tp != at || !slices.Equal(more, sending.values)) {
		wrong("from %d on there is %.40q, which nobody sent", end, more)
	}
	return errors.Join(errs...)
}
