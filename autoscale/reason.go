package autoscale

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// reason says in a sentence why a decision is what it is.
func (d Decision) reason(c Config, now Measurement, l load, why bound, kept keep) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: ", d.Workers)
	switch kept {
	case heldUnknown:
		fmt.Fprintf(&b, "held, the broker does not tell what waits, for %s", spoken(d.At.Sub(d.KnownAt)))
	case heldFloor:
		fmt.Fprintf(&b, "the floor, the broker has not told what waits for %s", spoken(d.At.Sub(d.KnownAt)))
	case heldWorkTime:
		fmt.Fprintf(&b, "held until it is known how long a record takes, guessed at %s; %s not done", spoken(l.workTime), count(d.Backlog))
	case heldStuck:
		b.WriteString("held, nothing of what waits moves, and more workers would not help")
	default:
		d.because(&b, c, now, l, why)
	}
	switch kept {
	case heldUp:
		fmt.Fprintf(&b, "; wants %d, but raised less than %s ago", d.Wanted, spoken(c.UpEvery))
	case heldDown:
		if span := spoken(d.waits); d.needed > d.enough {
			fmt.Fprintf(&b, "; %d would do, but %d were needed within the last %s", d.enough, d.needed, span)
		} else {
			fmt.Fprintf(&b, "; %d would do, but not for %s yet", d.enough, span)
		}
	case heldBudget:
		fmt.Fprintf(&b, "; wants %d, but of %d rebalances an hour too few are left for that", d.Wanted, c.Rebalances)
	case heldIdle:
		who := "they stay"
		if d.Workers == 1 {
			who = "the last one stays"
		}
		fmt.Fprintf(&b, "; %s until idle for %s", who, spoken(c.Idle))
	}
	if len(d.Poisoned) > 0 {
		fmt.Fprintf(&b, "; left out as poisoned: %s", partitions(d.Poisoned))
	}
	if len(d.Slow) > 0 {
		fmt.Fprintf(&b, "; left out as slow, with nothing done for more than %s: %s", spoken(max(c.Stuck, 10*l.workTime)), partitions(d.Slow))
	}
	if l.paused > 0 {
		fmt.Fprintf(&b, "; left out as paused: %d", l.paused)
	}
	if len(d.Hot) > 0 {
		fmt.Fprintf(&b, "; more than one worker can do comes into %s: more workers do not help, more partitions or other keys do", partitions(d.Hot))
	}
	return b.String()
}

// because gives the formula with its numbers.
func (d Decision) because(b *strings.Builder, c Config, now Measurement, l load, why bound) {
	if l.spent && l.busy {
		said := "little waits, and it is not known how long a record takes: fewer are tried"
		if l.growing && d.Workers >= d.From {
			said = fmt.Sprintf("%s wait, and more come than are done, at a guessed %s each", count(d.Backlog), spoken(l.workTime))
		}
		b.WriteString(said)
		return
	}
	if d.ForInflow == 0 && d.ForBacklog == 0 {
		b.WriteString("nothing to do")
	} else {
		rising, guessed := "", ""
		if l.rising > 1 {
			rising = " and rising"
		}
		if l.guessed {
			guessed = "a guessed "
		}
		fmt.Fprintf(b, "%.1f for inflow of %s/s%s, %.1f to drain %s in %s, at %s%s each",
			d.ForInflow, count(int64(math.Round(d.Inflow))), rising, d.ForBacklog, count(d.Backlog), spoken(c.Drain), guessed, spoken(l.workTime))
		if c.Concurrency > 1 {
			fmt.Fprintf(b, ", %d at once", c.Concurrency)
		}
	}
	formula := int(math.Ceil(d.ForInflow + d.ForBacklog - 1e-9))
	can := int(math.Ceil(l.forInflow + l.forBacklog - 1e-9))
	switch {
	case why == boundMin:
		fmt.Fprintf(b, "; at least %d", c.Min)
	case why == boundMax:
		fmt.Fprintf(b, "; at most %d", c.Max)
	case why == boundPartitions:
		fmt.Fprintf(b, "; no more than the %d partitions can use", len(now.Partitions))
	case why == boundKeys:
		fmt.Fprintf(b, "; no more than the %d keys in flight can use", now.Keys)
	case why == boundSome:
		b.WriteString("; at least one while something is there")
	case l.catchingUp > 0 && d.Wanted > can:
		fmt.Fprintf(b, "; a partition has one worker at most; %d more so that little has to wait beside one that catches up", d.Wanted-can)
	case l.guessed && d.Wanted < can:
		b.WriteString("; no more than half as many again as wait")
	case d.Wanted < formula:
		b.WriteString("; a partition has one worker at most")
	case d.Wanted > formula:
		fmt.Fprintf(b, "; %d more so that records do not wait for one another", d.Wanted-formula)
	}
	if d.Workers > d.From && d.Workers > d.Wanted {
		fmt.Fprintf(b, "; %d more for what comes until they work", d.Workers-d.Wanted)
	}
}

// partitions lists some partitions.
func partitions(list []int32) string {
	word, tail := "partition ", ""
	if len(list) > 1 {
		word = "partitions "
	}
	if len(list) > 5 {
		tail = fmt.Sprintf(" and %d more", len(list)-5)
		list = list[:5]
	}
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = strconv.Itoa(int(p))
	}
	return word + strings.Join(texts, ", ") + tail
}

// count writes a number with commas between thousands.
func count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// spoken writes a duration with about two digits.
func spoken(d time.Duration) string {
	switch {
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(100 * time.Microsecond)
	}
	text := d.String()
	text = strings.TrimSuffix(text, "0s")
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	if text == "" || text[len(text)-1] >= '0' && text[len(text)-1] <= '9' {
		return d.String() // 10s, 0s: the zero was not a field of its own
	}
	return text
}
