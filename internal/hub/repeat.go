package hub

import "github.com/osmosis-gateway/caddy-osmosis/record"

// answerPart names a part of an answer in parts: the number of the try that
// made it, and its own. It is zero for a reply that is a whole answer.
//
// Whoever writes parts writes them again when it does not learn whether they
// were written, so that one may lie in the log twice, with others between; and
// where a try was given up, what it had under way may come behind the first parts
// of the next. Both are told by their numbers, and are given to nobody. What
// there is to compare with is in the record that a client's cursor names, so
// that a client that comes back is given the same as one that stayed.
type answerPart struct{ attempt, part int }

// partOf tells which part a reply is.
func partOf(r *record.Reply) answerPart {
	if r.Part == 0 {
		return answerPart{}
	}
	return answerPart{r.Attempt, r.Part}
}

// repeated tells whether a reply comes too late behind a part that was given.
func (p answerPart) repeated(r *record.Reply) bool {
	next := partOf(r)
	return next.part > 0 && p.part > 0 &&
		(next.attempt < p.attempt || next.attempt == p.attempt && next.part <= p.part)
}
