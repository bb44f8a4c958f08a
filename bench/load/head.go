package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Head is what is read of a response's status line and fields.
type Head struct {
	// Status is the status code.
	Status int
	// Length is the body's Content-Length; 0 where there is none.
	Length int
	// Chunked says that the body comes in chunks, see Chunks.
	Chunked bool
	// Location is the field of that name. It refers to the bytes that were read.
	Location []byte
	// Size is how many bytes the head takes, with the empty line.
	Size int
}

// maxHead bounds a head, in bytes.
const maxHead = 32 << 10

var errHead = errors.New("not the head of an HTTP/1.1 response")

// ParseHead reads the head of a response. It is false while its end has not come.
func ParseHead(in []byte) (h Head, complete bool, err error) {
	end := bytes.Index(in, []byte("\r\n\r\n"))
	if end < 0 {
		if len(in) > maxHead {
			return h, false, fmt.Errorf("%w: longer than %d bytes", errHead, maxHead)
		}
		return h, false, nil
	}
	const version = "HTTP/1.1 "
	line, rest, _ := bytes.Cut(in[:end], []byte("\r\n"))
	if len(line) < len(version)+3 || string(line[:len(version)]) != version {
		return h, false, fmt.Errorf("%w: %.100q", errHead, line)
	}
	if h.Status, err = strconv.Atoi(string(line[len(version) : len(version)+3])); err != nil {
		return h, false, fmt.Errorf("%w: %.100q", errHead, line)
	}
	h.Size = end + 4
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		switch line[0] | 0x20 {
		case 'c':
			if v, ok := field(line, "content-length:"); ok {
				if h.Length, err = strconv.Atoi(string(v)); err != nil || h.Length < 0 {
					return h, false, fmt.Errorf("%w: %.100q", errHead, line)
				}
			}
		case 'l':
			if v, ok := field(line, "location:"); ok {
				h.Location = v
			}
		case 't':
			if v, ok := field(line, "transfer-encoding:"); ok {
				h.Chunked = string(v) == "chunked"
			}
		}
	}
	return h, true, nil
}

// field gives the value of a line whose name, with its colon, is the given one.
func field(line []byte, name string) ([]byte, bool) {
	if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name):]), true
}
