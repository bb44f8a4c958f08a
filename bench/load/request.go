package load

import (
	"bytes"
	"fmt"
	"net/netip"
)

// Post gives a POST request as it is sent, with the given fields besides those
// that any client sends.
func Post(to netip.AddrPort, path string, body []byte, fields ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, to, len(body))
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// Follow gives a GET request for an event stream as it is sent.
func Follow(to netip.AddrPort, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: text/event-stream\r\n\r\n", path, to)
}

// JSON gives a JSON object of the given size in bytes, at least 32.
func JSON(size int) []byte {
	const head, tail = `{"order":1,"note":"`, `"}`
	fill := max(size-len(head)-len(tail), 0)
	return []byte(head + string(bytes.Repeat([]byte("espresso "), fill/9+1)[:fill]) + tail)
}
