//go:build e2e && unix

package deliver

import (
	"syscall"
	"testing"
	"time"
)

// TestFrozenProcessesOnRealKafka stops one of three processes by SIGSTOP again
// and again, for longer than its session lasts, and lets it go on. A frozen
// process cannot know that another has taken over, so tries may overlap; they
// are counted.
func TestFrozenProcessesOnRealKafka(t *testing.T) {
	t.Parallel()
	// A try that is frozen when it begins should still run when the next owner
	// tries the same record, so that there is something to count.
	slow := func(n, attempt int) (int, time.Duration) {
		status, takes := moody(n, attempt)
		return status, takes + 100*time.Millisecond
	}
	total, times := chaos(t, 5_000, 2)
	f := newField(t, 12, slow, nil)
	gone := make(map[string]bool)
	var counted found
	for range 3 {
		f.add()
	}
	began := time.Now()
	f.send(total, oneIn(10, 300))
	for range times {
		if left, err := f.left(t.Context()); err == nil && left == 0 {
			break
		}
		m := f.remove()
		wait(3 * time.Second)
		m.signal(syscall.SIGSTOP)
		wait(sessionTimeout + 2*time.Second)
		m.signal(syscall.SIGCONT)
		gone[m.name] = true
		counted.frozen++
		f.members = append(f.members, m)
	}
	f.until(0)
	took := time.Since(began)
	f.endAll()
	c := f.check(gone, counted)
	t.Logf("in %s: %s", took.Round(time.Second), c)
}

// signal sends the process a signal.
func (m *member) signal(signal syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(signal); err != nil {
		m.t.Fatal(err)
	}
}
