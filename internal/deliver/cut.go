package deliver

import (
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// stretch is what was read under one leader of a partition: all from an offset on,
// up to the next stretch.
type stretch struct {
	epoch broker.Epoch
	from  int64
}

// after gives the epoch of what was read last of a partition.
func (r *reader) after(number int32) broker.Epoch {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.stretches[number]; len(s) > 0 {
		return s[len(s)-1].epoch
	}
	return broker.Epoch{}
}

// heed notes the epoch of what was read from an offset on.
func (r *reader) heed(got *broker.Fetched, from int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stretches[got.Partition]
	if got.Epoch != (broker.Epoch{}) && (len(s) == 0 || s[len(s)-1].epoch != got.Epoch) {
		r.stretches[got.Partition] = append(s, stretch{got.Epoch, from})
	}
}

// cutOff takes a broker's word that the log was cut off and written anew, so that
// it need not be shorter than it was: brokers that were behind have elected one of
// themselves. What was done beyond the cut is done, but other records are there
// now, and they are to be delivered too.
func (r *reader) cutOff(number int32, at int64) {
	r.mu.Lock()
	if s := r.stretches[number]; at == 0 && len(s) > 0 {
		at = s[len(s)-1].from // the broker has nothing of that leader's
	}
	r.mu.Unlock()
	r.d.log.Error("brokers have lost the end of the log and written it anew: requests that they had confirmed are gone, and what is there now is delivered; "+
		"unclean.leader.election.enable=false on the topic keeps them from it", r.d.fields(zap.Int32("partition", number), zap.Int64("cut_at", at))...)
	r.forget(number)
	r.d.queue.cut(number, at)
}

// forget has a partition be read anew, under the leader that it has now.
func (r *reader) forget(number int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.stretches, number)
}
