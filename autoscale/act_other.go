//go:build !unix

package autoscale

import "os/exec"

// setGroup does nothing where processes have no groups.
func setGroup(*exec.Cmd) {}

// terminate ends the command: there is no signal that asks.
func terminate(cmd *exec.Cmd) error { return cmd.Process.Kill() }

// killGroup does nothing where processes have no groups.
func killGroup(*exec.Cmd) {}
