//go:build !linux

package rig

import (
	"errors"
	"syscall"
	"time"
)

// errOS is what measuring gives where there is no /proc.
var errOS = errors.New("processor time and memory are read from /proc: run the benchmarks on Linux")

// CPU gives an error.
func (*Process) CPU() (time.Duration, error) { return 0, errOS }

// OwnCPU gives nothing.
func OwnCPU() time.Duration { return 0 }

// Resident gives an error.
func (*Process) Resident() (int64, error) { return 0, errOS }

// Descriptors gives an error.
func Descriptors() (int, error) { return 0, errOS }

func orphan() *syscall.SysProcAttr { return nil }
