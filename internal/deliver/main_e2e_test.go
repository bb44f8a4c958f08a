//go:build e2e

package deliver

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests, or, in a process that one of them has started,
// delivers.
func TestMain(m *testing.M) {
	if order := os.Getenv(memberOrder); order != "" {
		os.Exit(deliverAsMember(order))
	}
	goleak.VerifyTestMain(m)
}
