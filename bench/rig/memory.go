package rig

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Memory is what a process holds, in bytes.
type Memory struct {
	// Resident is what the system says.
	Resident int64
	// InUse is what Go's heap and stacks have in use after a collection.
	InUse int64
}

// Memory collects garbage and measures. The process has to serve Go's profiles.
func (p *Process) Memory(ctx context.Context) (m Memory, err error) {
	text, err := fetch(ctx, "http://"+p.Admin+"/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return m, fmt.Errorf("fetch the heap's figures of %s: %w", p.Name, err)
	}
	// The profile ends with runtime.MemStats, as "# HeapInuse = 1" and "# Stack = 1 / 2".
	for line := range strings.Lines(string(text)) {
		name, value, found := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "# ")), " = ")
		if !found || name != "HeapInuse" && name != "Stack" {
			continue
		}
		value, _, _ = strings.Cut(value, " ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return m, fmt.Errorf("read the heap's figures of %s: %w", p.Name, err)
		}
		m.InUse += n
	}
	m.Resident, err = p.Resident()
	return m, err
}
