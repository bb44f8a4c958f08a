package load

import (
	"errors"
	"strings"
	"testing"
)

func TestParseHead(t *testing.T) {
	const whole = "HTTP/1.1 202 Accepted\r\nContent-length: 12\r\nLOCATION:  /-/streams/x \r\nServer: Caddy\r\n\r\n"
	h, complete, err := ParseHead([]byte(whole + "the body"))
	if err != nil || !complete || h.Status != 202 || h.Length != 12 || string(h.Location) != "/-/streams/x" || h.Chunked || h.Size != len(whole) {
		t.Errorf("%+v %v %v", h, complete, err)
	}
	h, complete, err = ParseHead([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
	if err != nil || !complete || h.Status != 200 || !h.Chunked || h.Length != 0 {
		t.Errorf("%+v %v %v", h, complete, err)
	}
	for i := range len(whole) {
		if _, complete, err := ParseHead([]byte(whole[:i])); complete || err != nil {
			t.Fatalf("%q: %v %v", whole[:i], complete, err)
		}
	}
	for _, wrong := range []string{
		"\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		strings.Repeat("x", maxHead+1),
	} {
		if _, _, err := ParseHead([]byte(wrong)); !errors.Is(err, errHead) {
			t.Errorf("%.50q: %v", wrong, err)
		}
	}
}
