package deliver

import (
	"crypto/rand"
	"encoding/hex"
)

// run names one life of a Delivery. Commits and the control topic carry it: whose
// a partition was last, and who has a try that was handed over.
type run [8]byte

func newRun() (r run) {
	_, _ = rand.Read(r[:]) // never fails
	return r
}

// String gives the run as the control topic has it.
func (r run) String() string { return hex.EncodeToString(r[:]) }

// parseRun reads a run; ok is false for what String does not write.
func parseRun(text string) (r run, ok bool) {
	if len(text) != 2*len(r) {
		return run{}, false
	}
	n, err := hex.Decode(r[:], []byte(text))
	return r, err == nil && n == len(r) && r != run{} && r.String() == text
}
