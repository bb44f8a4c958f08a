package record

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxEventName bounds the name of an event, in bytes.
const maxEventName = 128

// ownEvents are the names that events have in a client's stream by themselves:
// the gateway's, and those that a browser's EventSource fires. A reply under
// such a name would pass for what it is not.
var ownEvents = []string{"status", "end", "gap", "binary", "message", "error", "open"}

// validEventName tells whether an upstream's event keeps its name.
func validEventName(name string) bool {
	return name != "" && len(name) <= maxEventName && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, unicode.IsControl) && !slices.Contains(ownEvents, name)
}
