//go:build !linux

package exampletest

import "syscall"

// orphan does nothing here: what outlives a test that died is ended by hand.
func orphan() *syscall.SysProcAttr { return nil }
