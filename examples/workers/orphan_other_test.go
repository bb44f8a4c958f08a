//go:build e2e && !linux

package workers_test

import "syscall"

// orphan does nothing here: what outlives a test that died is ended by hand.
func orphan() *syscall.SysProcAttr { return nil }
