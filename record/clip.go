package record

import "strings"

// maxClip bounds in bytes what an error says of a foreign value, which may be a
// megabyte: errors are logged, and told to clients.
const maxClip = 512

// clip leaves the middle of a long text out. Its beginning says what it is
// about, its end what to write instead.
func clip(s string) string {
	if len(s) <= maxClip {
		return s
	}
	const half = (maxClip - len("…")) / 2
	// A cut may go through a character.
	return strings.ToValidUTF8(s[:half], "") + "…" + strings.ToValidUTF8(s[len(s)-half:], "")
}
