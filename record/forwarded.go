package record

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// ErrForwarded says that a Forwarded field cannot be read.
var ErrForwarded = errors.New("malformed forwarded field")

// Forwarded is one hop of a Forwarded field (RFC 7239): where a request came
// from and how. What is not known is empty.
type Forwarded struct {
	// For is the client's address, without brackets and port. It may also be
	// "unknown" or an obfuscated name, which begins with an underscore.
	For string
	// Proto is the scheme that the client used.
	Proto string
	// Host is what the client sent as the host.
	Host string
}

// appendForwarded writes the field for one hop. A client that is not an IP
// address is unknown.
func appendForwarded(dst []byte, f Forwarded) []byte {
	dst = append(dst, "for="...)
	switch addr, err := netip.ParseAddr(f.For); {
	case err != nil:
		dst = append(dst, "unknown"...)
	case addr.Is6():
		// A zone means nothing to anyone else, and the grammar has none.
		dst = append(dst, `"[`...)
		dst = addr.WithZone("").AppendTo(dst)
		dst = append(dst, `]"`...)
	default:
		dst = addr.AppendTo(dst)
	}
	dst = appendPair(dst, ";proto=", f.Proto)
	return appendPair(dst, ";host=", f.Host)
}

// appendPair writes a pair with its value as a token or, where it is none, as a
// quoted string. A value that fits in neither is left out.
func appendPair(dst []byte, name, value string) []byte {
	if value == "" || !httpguts.ValidHeaderFieldValue(value) {
		return dst
	}
	dst = append(dst, name...)
	if httpguts.ValidHeaderFieldName(value) { // the same grammar: a token
		return append(dst, value...)
	}
	dst = append(dst, '"')
	for i := range len(value) {
		if value[i] == '"' || value[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, value[i])
	}
	return append(dst, '"')
}

// ParseForwarded reads a Forwarded field and gives its first hop, the one
// nearest to the client. Parameters other than for, proto and host are read
// over. The error is ErrForwarded.
func ParseForwarded(s string) (Forwarded, error) {
	var f, hop Forwarded
	first, seen := true, make(nameSet)
	for rest := s; ; {
		rest = strings.TrimLeft(rest, " \t")
		i := strings.IndexByte(rest, '=')
		if i < 0 || !httpguts.ValidHeaderFieldName(rest[:i]) {
			return Forwarded{}, fmt.Errorf("%w %q: want name=value", ErrForwarded, clip(s))
		}
		name := strings.ToLower(rest[:i])
		if _, ok := seen[name]; ok {
			return Forwarded{}, fmt.Errorf("%w %q: %s stands twice", ErrForwarded, clip(s), clip(name))
		}
		seen[name] = struct{}{}
		value, after, ok := forwardedValue(rest[i+1:])
		if !ok {
			return Forwarded{}, fmt.Errorf("%w %q: the value of %s is neither a token nor a quoted string", ErrForwarded, clip(s), clip(name))
		}
		switch name {
		case "for":
			if hop.For, ok = node(value); !ok {
				return Forwarded{}, fmt.Errorf("%w %q: %q is no node", ErrForwarded, clip(s), clip(value))
			}
		case "proto":
			hop.Proto = value
		case "host":
			hop.Host = value
		}
		rest = strings.TrimLeft(after, " \t")
		switch {
		case rest == "" || rest[0] == ',':
			if first {
				f, first = hop, false
			}
			if rest == "" {
				return f, nil
			}
			// A new set: to clear the old one would cost what it once held, at
			// every hop.
			hop, seen = Forwarded{}, make(nameSet)
		case rest[0] != ';':
			return Forwarded{}, fmt.Errorf("%w %q: want ; or , before %q", ErrForwarded, clip(s), clip(rest))
		}
		rest = rest[1:]
	}
}

// forwardedValue cuts a token or a quoted string off the front of s.
func forwardedValue(s string) (value, rest string, ok bool) {
	if strings.HasPrefix(s, `"`) {
		return quotedString(s)
	}
	i := strings.IndexAny(s, ";, \t")
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:], httpguts.ValidHeaderFieldName(s[:i])
}

// quotedString cuts a quoted string of HTTP off the front of s, which begins
// with a double quote, and takes its backslashes away.
func quotedString(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], httpguts.ValidHeaderFieldValue(b.String())
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// node gives the address of an RFC 7239 node without brackets and port.
func node(s string) (string, bool) {
	if addr, after, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && s[0] == '[' {
		ip, err := netip.ParseAddr(addr)
		return addr, err == nil && ip.Is6() && ip.Zone() == "" && (after == "" || after[0] == ':')
	}
	name, _, _ := strings.Cut(s, ":")
	if name == "unknown" || strings.HasPrefix(name, "_") {
		return name, true
	}
	ip, err := netip.ParseAddr(name)
	return name, err == nil && ip.Is4()
}
