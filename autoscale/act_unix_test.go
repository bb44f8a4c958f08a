//go:build unix

package autoscale

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

func TestNoZombieIsLeft(t *testing.T) {
	for _, behaviour := range []string{"work", "stubborn", "crash"} {
		p, lines := crew(t, behaviour, 100*time.Millisecond)
		p.Scale(Order{Workers: 3})
		for range 3 {
			await(t, lines, "worker started")
		}
		p.Close()
		var status syscall.WaitStatus
		if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
			t.Errorf("%s: process %d is left: %v", behaviour, pid, err)
		}
	}
}
