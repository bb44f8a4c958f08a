package record

import (
	"maps"
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
// carried, by their lower-cased names.
var hopByHop = []string{
	"connection", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
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
	connection := header["Connection"]
	for name, values := range header {
		lower, ok := requestNames[name]
		if !ok {
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
func carried(lower string, connection []string) bool {
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

// endToEnd tells whether a field is not hop-by-hop, neither by RFC 9110 nor
// because the Connection field names it.
func endToEnd(lower string, connection []string) bool {
	return !slices.Contains(hopByHop, lower) &&
		(len(connection) == 0 || !httpguts.HeaderValuesContainsToken(connection, lower))
}

// replyField tells whether a header of a reply goes to the client.
func replyField(lower string, connection []string) bool {
	switch lower {
	case "content-length", "date", // the gateway's server writes its own
		"traceparent", "tracestate", "baggage": // of the worker's trace, not the client's
		return false
	}
	return httpguts.ValidHeaderFieldName(lower) && !own(lower) && endToEnd(lower, connection)
}

// httpHeader collects the headers of a record that keep lets through, asked by
// their lower-cased names, and that HTTP allows. Their values share one string
// and one slice, so the number of allocations does not grow with them.
func httpHeader(headers []Header, keep func(lower string) bool) http.Header {
	fields, size := 0, 0
	for _, h := range headers {
		if !own(h.Key) {
			fields++
			size += len(h.Value)
		}
	}
	out := make(http.Header, fields)
	values := make([]string, 0, fields)
	var text strings.Builder
	text.Grow(size)
	for _, h := range headers {
		lower := strings.ToLower(h.Key) // in HTTP, X and x are one name
		if !keep(lower) {
			continue
		}
		start := text.Len()
		text.Write(h.Value)
		value := strings.Trim(text.String()[start:], " \t")
		if !httpguts.ValidHeaderFieldValue(value) {
			continue
		}
		name := http.CanonicalHeaderKey(lower)
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

// sortedNames gives the names of a header in a fixed order.
func sortedNames(h http.Header) []string {
	return slices.Sorted(maps.Keys(h))
}
