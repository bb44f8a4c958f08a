package osmosis

import (
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longestWait keeps what a client asks for within what a duration can hold;
// the configuration's max_wait is what bounds it in earnest.
const longestWait = 24 * time.Hour

// prefer is what a client asks for in Prefer (RFC 7240), as far as it concerns
// a queue.
type prefer struct {
	// waits says that the client named a time to wait, and wait which; it may be 0.
	waits bool
	wait  time.Duration
	// async says that the client would rather have 202 than wait for an answer.
	async bool
}

// upTo gives how long to wait for the client, at most so long, and how that is
// said in Preference-Applied. Where the client asks for nothing both are zero.
func (p prefer) upTo(most time.Duration) (wait time.Duration, applied []string) {
	if !p.waits {
		return 0, nil
	}
	wait = min(p.wait, most)
	return wait, []string{"wait=" + strconv.Itoa(int(wait/time.Second))}
}

// parsePrefer reads all Prefer lines of a request. Of a preference that stands
// more than once the first counts; one that cannot be read counts as absent,
// since a preference is never a reason to refuse a request.
func parsePrefer(h http.Header) prefer {
	var p prefer
	waitSeen := false
	for preference := range list(h.Values("Prefer"), ',') {
		// Parameters come after a semicolon; neither preference has any.
		name, value, _ := strings.Cut(firstOf(list([]string{preference}, ';')), "=")
		switch name = strings.TrimSpace(name); {
		case strings.EqualFold(name, "respond-async"):
			p.async = true
		case strings.EqualFold(name, "wait") && !waitSeen:
			waitSeen = true
			p.wait, p.waits = parseSeconds(unquote(strings.TrimSpace(value)))
		}
	}
	return p
}

// parseSeconds reads a number of seconds; more than a duration can hold is as
// long as one can wait.
func parseSeconds(s string) (time.Duration, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > int64(longestWait/time.Second) {
		return longestWait, true
	}
	return time.Duration(n) * time.Second, true
}

// list gives the elements of a header field's list, over all its lines,
// without the space around them and without empty ones. A separator inside a
// quoted string does not count.
func list(lines []string, separator byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			quoted, start := false, 0
			for i := 0; i <= len(line); i++ {
				switch {
				case i == len(line) || line[i] == separator && !quoted:
					if element := strings.TrimSpace(line[start:i]); element != "" && !yield(element) {
						return
					}
					start = i + 1
				case line[i] == '"':
					quoted = !quoted
				case line[i] == '\\' && quoted && i+1 < len(line):
					i++ // what is escaped does not end the string
				}
			}
		}
	}
}

// firstOf gives the first element of a list, or nothing.
func firstOf(elements iter.Seq[string]) string {
	for element := range elements {
		return element
	}
	return ""
}

// unquote gives the text of a quoted string (RFC 9110, section 5.6.4), and any
// other text as it is.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
