package record

import (
	"bytes"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// requestNames are the allowlisted request headers that are not found by their
// prefix, from Go's spelling to the record's.
var requestNames = map[string]string{
	"User-Agent":       "user-agent",
	"Origin":           "origin",
	"Referer":          "referer",
	"X-Requested-With": "x-requested-with",
	"Idempotency-Key":  "idempotency-key",
	"Traceparent":      "traceparent",
	"Tracestate":       "tracestate",
	"Baggage":          "baggage",
	// Found by their prefix as well; here so that the frequent ones cost no allocation.
	"Content-Type":     "content-type",
	"Content-Encoding": "content-encoding",
	"Content-Language": "content-language",
	"Accept":           "accept",
	"Accept-Encoding":  "accept-encoding",
	"Accept-Language":  "accept-language",
}

// hopByHop are the fields that concern one connection only and are never
// carried, by their lower-cased names. Close is no field: the name is reserved,
// because Connection has it as a word of its own (RFC 9110 section 9.6).
var hopByHop = []string{
	"connection", "close", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
	"te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
}

// ownPrefixes begin the names that have a meaning in the contract. Clients
// cannot set them, and they are not for clients to see.
var ownPrefixes = []string{":", "kafka_", "ce_", "osmosis-", "spring_", "__"}

// field is a request header on its way into a record.
type field struct {
	name   string // lower-cased
	values []string
}

// requestFields appends those headers of a request that its record carries,
// sorted by name so that equal requests make equal records.
func requestFields(dst []field, header http.Header, named []string) []field {
	connection := connectionNames(header["Connection"])
	for name, values := range header {
		lower, usual := requestNames[name] // end-to-end fields, all of them
		if usual && connection == nil {
			dst = append(dst, field{lower, values})
			continue
		}
		if !usual {
			if !allowed(name) && !contains(named, name) {
				continue
			}
			lower = strings.ToLower(name)
		}
		if carried(lower, connection) {
			dst = append(dst, field{lower, values})
		}
	}
	slices.SortStableFunc(dst, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return dst
}

// allowed tells whether a request header, in any case, is on the allowlist.
func allowed(name string) bool {
	if hasPrefixFold(name, "content-") || hasPrefixFold(name, "accept") {
		return true
	}
	_, ok := requestNames[http.CanonicalHeaderKey(name)]
	return ok
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func contains(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// carried tells whether a request header may be in a record even where it is
// allowed or named: it is an end-to-end field with a proper name, and none that
// says what the record itself says.
func carried(lower string, connection nameSet) bool {
	switch lower {
	case "content-length", // the value has a length
		HeaderForwarded, // the gateway's word, never the client's
		"host":          // it is :authority
		return false
	}
	return endToEnd(lower, connection) && !own(lower) && httpguts.ValidHeaderFieldName(lower)
}

// own tells whether a name belongs to the contract or to a framework's
// bookkeeping.
func own(lower string) bool {
	return slices.ContainsFunc(ownPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) })
}

// nameSet holds lower-cased names.
type nameSet map[string]struct{}

// connectionNames gives the fields that the values of a Connection field make
// hop-by-hop, without those that always are, so it is nil for most. It is a set
// because the list is as long as its sender likes: looking through it for every
// field would cost the square of a message's size.
func connectionNames(values []string) nameSet {
	var names nameSet
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			name = strings.Trim(name, " \t")
			if !httpguts.ValidHeaderFieldName(name) {
				continue
			}
			lower := strings.ToLower(name)
			if slices.Contains(hopByHop, lower) {
				continue
			}
			if names == nil {
				names = make(nameSet)
			}
			names[lower] = struct{}{}
		}
	}
	return names
}

// endToEnd tells whether a field is not hop-by-hop, neither by RFC 9110 nor
// because the Connection field names it.
func endToEnd(lower string, connection nameSet) bool {
	_, named := connection[lower]
	return !named && !slices.Contains(hopByHop, lower)
}

// replyField tells whether a header of a reply goes to the client.
func replyField(lower string, connection nameSet) bool {
	switch lower {
	case "content-length", "date", // the gateway's server writes its own
		"traceparent", "tracestate", "baggage": // of the worker's trace, not the client's
		return false
	}
	return httpguts.ValidHeaderFieldName(lower) && !own(lower) && endToEnd(lower, connection)
}

// bound limits which headers of a record become fields of HTTP: how many, and
// how many bytes their names and values have together.
type bound struct{ fields, bytes int }

// unbounded is for records that are read by those who asked for them.
var unbounded = bound{math.MaxInt, math.MaxInt}

// httpHeader collects the headers of a record that keep lets through, asked by
// their lower-cased names, that HTTP allows, and that are within the bound; one
// that does not fit is left out, and smaller ones behind it are not. The values
// share one string and one slice, so the number of allocations does not grow
// with them, and what was left out is not kept in memory with the rest.
func httpHeader(headers []Header, most bound, keep func(lower string) bool) http.Header {
	type line struct {
		lower string
		value []byte
	}
	var space [32]line
	lines, size, valueSize := space[:0], 0, 0
	for _, h := range headers {
		if len(lines) == most.fields {
			break
		}
		value := bytes.Trim(h.Value, " \t")
		if len(h.Key)+len(value) > most.bytes-size {
			continue
		}
		lower := strings.ToLower(h.Key) // in HTTP, X and x are one name
		if !keep(lower) || bytes.ContainsFunc(value, control) {
			continue
		}
		lines = append(lines, line{lower, value})
		size += len(h.Key) + len(value)
		valueSize += len(value)
	}
	out := make(http.Header, len(lines))
	values := make([]string, 0, len(lines))
	var text strings.Builder
	text.Grow(valueSize)
	for _, l := range lines {
		start := text.Len()
		text.Write(l.value)
		value := text.String()[start:]
		name := http.CanonicalHeaderKey(l.lower)
		if had, ok := out[name]; ok {
			out[name] = append(had, value)
			continue
		}
		values = append(values, value)
		// Its capacity ends here, so that adding a second value does not write
		// over another header's.
		out[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return out
}

// control tells whether HTTP keeps a character out of a field's value. Bytes
// from 0x80 on are allowed, whatever they are.
func control(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// sortedNames gives the names of a header in a fixed order.
func sortedNames(h http.Header) []string {
	return slices.Sorted(maps.Keys(h))
}
