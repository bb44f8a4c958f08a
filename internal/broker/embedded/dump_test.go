package embedded

import (
	"fmt"
	"strings"
)

func dumpAll(w *crashWorld, d *crashDisk, match string) {
	names := d.current.names
	for name, n := range names {
		if strings.Contains(name, match) && strings.HasSuffix(name, ".dat") {
			fmt.Println(name, len(d.current.files[n]))
			batches(d.current.files[n], func(b batch) { fmt.Printf("   %+v\n", b) })
			fmt.Printf("   idx %x\n", d.current.files[names[strings.TrimSuffix(name, ".dat")+".idx"]])
		}
		if strings.HasSuffix(name, "pids.log") || strings.HasSuffix(name, "seq_windows.json") || strings.HasSuffix(name, "stopped") || strings.HasSuffix(name, "session_state.json") || strings.HasSuffix(name, "snapshot.json") && strings.Contains(name, match) {
			fmt.Println(name, string(d.current.files[n]))
		}
	}
}
