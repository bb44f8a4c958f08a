//go:build !linux

package kafkatest

import "syscall"

// orphan does nothing here: a broker outlives a test process that died without
// its cleanups, and is ended by hand.
func orphan() *syscall.SysProcAttr { return nil }
