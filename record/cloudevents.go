package record

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
)

// ErrEvent says that a request calls itself a CloudEvent and cannot be read as
// one. The text says what to send instead; it is for the client (415).
var ErrEvent = errors.New("unreadable CloudEvent")

const (
	specVersion = "1.0"

	// attributePrefix begins the names of attributes in a record, headerPrefix
	// those in an HTTP request, in Go's spelling.
	attributePrefix = "ce_"
	headerPrefix    = "Ce-"

	eventMediaType = "application/cloudevents"

	// maxMembers bounds the members of a structured event, and so its
	// attributes: each costs many times the few bytes that it takes to send.
	maxMembers = 1000
)

// Attributes are the attributes of the CloudEvent that a record is.
type Attributes struct {
	// SpecVersion is the version of CloudEvents, 1.0.
	SpecVersion string
	// ID, Source and Type are those of the client's own event, if the request
	// was one. Otherwise the ID is the stream id. A client may send the same ID
	// twice, or another's: duplicates are told by the stream id.
	ID, Source, Type string
	// Subject and DataSchema are empty where the event has none.
	Subject, DataSchema string
	// Time is when it happened, zero where the event does not say it.
	Time time.Time
	// Extensions are all other attributes, nil where there are none.
	Extensions map[string]string
}

// set takes one attribute from a record. As elsewhere the first counts.
func (a *Attributes) set(name, value string) error {
	var text *string
	switch name {
	case "specversion":
		text = &a.SpecVersion
	case "id":
		text = &a.ID
	case "source":
		text = &a.Source
	case "type":
		text = &a.Type
	case "subject":
		text = &a.Subject
	case "dataschema":
		text = &a.DataSchema
	case "time":
		t, err := parseTime(value)
		if err != nil {
			return fmt.Errorf("%stime: %w", attributePrefix, err)
		}
		if a.Time.IsZero() {
			a.Time = t
		}
		return nil
	default:
		if a.Extensions == nil {
			a.Extensions = make(map[string]string)
		}
		if _, ok := a.Extensions[name]; !ok {
			a.Extensions[name] = value
		}
		return nil
	}
	if *text == "" {
		*text = value
	}
	return nil
}

// attribute is one attribute in its canonical text form.
type attribute struct{ name, value string }

// event is what a request is as a CloudEvent; without attributes it is none.
type event struct {
	attributes []attribute
	// structured: the body was an envelope, data is what it held.
	structured  bool
	data        []byte
	contentType string
}

// ofEnvelope tells which headers of a structured request are about the
// envelope and therefore not about the data that the record carries.
func ofEnvelope(lower string) bool {
	switch lower {
	case "content-type", "content-encoding", "content-digest", "content-md5", "content-range":
		return true
	}
	return false
}

// readEvent finds out whether a request is a CloudEvent, and reads it.
func readEvent(header http.Header, body []byte) (event, error) {
	contentType := header.Get("Content-Type")
	if len(contentType) >= len(eventMediaType) && strings.EqualFold(contentType[:len(eventMediaType)], eventMediaType) {
		media, params, err := mediaType(contentType)
		switch {
		case err != nil:
			return event{}, eventErrorf("content-type %q: %v", contentType, err)
		case media == eventMediaType+"-batch" || strings.HasPrefix(media, eventMediaType+"-batch+"):
			return event{}, eventErrorf("a batch becomes no single record; send each event by itself as %s+json", eventMediaType)
		case media != eventMediaType+"+json":
			return event{}, eventErrorf("format %s is not supported; send %s+json, or the attributes as ce- headers", media, eventMediaType)
		case params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8"):
			return event{}, eventErrorf("charset %q is not supported; JSON is sent in utf-8", params["charset"])
		}
		for _, coding := range header["Content-Encoding"] {
			if !strings.EqualFold(coding, "identity") {
				return event{}, eventErrorf("content-encoding %q is not supported for %s; send it unencoded", coding, media)
			}
		}
		return readStructured(body)
	}
	if _, ok := header[headerPrefix+"Specversion"]; ok {
		return readBinary(header)
	}
	return event{}, nil
}

func eventErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrEvent, clip(fmt.Sprintf(format, args...)))
}

// readBinary reads the attributes of an event in binary mode from its headers.
func readBinary(header http.Header) (event, error) {
	attributes := make(map[string]string)
	for name, values := range header {
		if !strings.HasPrefix(name, headerPrefix) {
			continue
		}
		attr := strings.ToLower(name[len(headerPrefix):])
		switch {
		case attr == "datacontenttype":
			return event{}, eventErrorf("header ce-datacontenttype is not allowed; content-type says it")
		case len(values) != 1:
			return event{}, eventErrorf("header ce-%s stands %d times; send it once", attr, len(values))
		}
		value, err := decodeHeader(values[0])
		if err != nil {
			return event{}, eventErrorf("header ce-%s: %v", attr, err)
		}
		attributes[attr] = value
	}
	list, err := checkAttributes(attributes)
	return event{attributes: list}, err
}

// decodeHeader undoes the encoding of an attribute as a header value: first a
// quoted string, then one round of percent-decoding (HTTP binding 3.1.3.2).
func decodeHeader(v string) (string, error) {
	v = strings.Trim(v, " \t")
	if strings.HasPrefix(v, `"`) {
		inner, rest, ok := quotedString(v)
		if !ok || rest != "" {
			return "", fmt.Errorf("%q is no quoted string; write a double quote as %%22", v)
		}
		v = inner
	}
	if strings.Contains(v, "%") {
		decoded, err := url.PathUnescape(v)
		if err != nil {
			return "", fmt.Errorf("%q is not percent-encoded; write a percent sign as %%25", v)
		}
		v = decoded
	}
	return v, nil
}

// readStructured reads an event in JSON format.
func readStructured(body []byte) (event, error) {
	members, err := jsonMembers(body)
	if err != nil {
		return event{}, eventErrorf("%v; send one JSON object in utf-8", err)
	}
	ev := event{structured: true, data: []byte{}}
	data, hasData := members["data"]
	data64, hasData64 := members["data_base64"]
	delete(members, "data")
	delete(members, "data_base64")

	attributes := make(map[string]string, len(members))
	for name, raw := range members {
		value, ok, err := jsonAttribute(raw)
		if err != nil {
			return event{}, eventErrorf("attribute %q: %v", name, err)
		}
		if ok {
			attributes[name] = value
		}
	}
	if contentType, ok := attributes["datacontenttype"]; ok {
		delete(attributes, "datacontenttype")
		if _, _, err := mediaType(contentType); err != nil || !httpguts.ValidHeaderFieldValue(contentType) {
			return event{}, eventErrorf("datacontenttype %q is no media type; write it as application/json", contentType)
		}
		ev.contentType = contentType
	}
	if ev.attributes, err = checkAttributes(attributes); err != nil {
		return event{}, err
	}

	switch {
	case hasData && hasData64:
		return event{}, eventErrorf("data and data_base64 exclude each other; send one of them")
	case hasData64:
		var text string
		if err := json.Unmarshal(data64, &text); err != nil {
			return event{}, eventErrorf("data_base64 is no JSON string")
		}
		if ev.data, err = base64.StdEncoding.DecodeString(text); err != nil {
			return event{}, eventErrorf("data_base64: %v; encode it with padding, RFC 4648 section 4", err)
		}
	case hasData:
		if ev.contentType == "" {
			ev.contentType = "application/json" // implied, and told explicitly in other forms
		}
		ev.data = data
		if !isJSON(ev.contentType) && data[0] == '"' {
			var text string
			if err := json.Unmarshal(data, &text); err != nil {
				return event{}, eventErrorf("data: %v", err)
			}
			ev.data = []byte(text)
		}
	}
	return ev, nil
}

// jsonMembers gives the members of the one JSON object that the body is. Two of
// the same name are refused: readers would differ on which of them counts.
func jsonMembers(body []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("the body is not valid utf-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("the body is no JSON object")
	}
	members := make(map[string]json.RawMessage)
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("the body is no JSON: %w", err)
		}
		name, _ := t.(string) // the decoder lets only strings stand here
		if _, ok := members[name]; ok {
			return nil, fmt.Errorf("member %q stands twice", name)
		}
		if len(members) == maxMembers {
			return nil, fmt.Errorf("the object has more than %d members; what is no attribute stands in data", maxMembers)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, fmt.Errorf("the body is no JSON: %w", err)
		}
		members[name] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("the body is no JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind the JSON object")
	}
	return members, nil
}

// jsonAttribute gives an attribute's canonical text. It is false for null,
// which is as if the attribute were not there.
func jsonAttribute(raw json.RawMessage) (string, bool, error) {
	switch raw[0] {
	case 'n':
		return "", false, nil
	case 't', 'f':
		return string(raw), true, nil
	case '"':
		var text string
		err := json.Unmarshal(raw, &text)
		return text, true, err
	case '{', '[':
		return "", false, errors.New("an attribute is a string, a boolean or an integer; put objects into data")
	}
	if _, err := strconv.ParseInt(string(raw), 10, 32); err != nil {
		return "", false, fmt.Errorf("%s is no 32-bit integer; write other numbers as strings", raw)
	}
	return string(raw), true, nil
}

// checkAttributes holds the attributes against the specification and gives
// them sorted by name.
func checkAttributes(attributes map[string]string) ([]attribute, error) {
	if v := attributes["specversion"]; v != specVersion {
		return nil, eventErrorf("specversion %q is not supported; send %s", v, specVersion)
	}
	for _, name := range []string{"id", "source", "type"} {
		if attributes[name] == "" {
			return nil, eventErrorf("attribute %s is missing; it is required and not empty", name)
		}
	}
	list := make([]attribute, 0, len(attributes))
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		value := attributes[name]
		if !validAttributeName(name) {
			return nil, eventErrorf("attribute %q: a name is lower-case letters and digits, and not data", name)
		}
		if !validText(value) {
			return nil, eventErrorf("attribute %s is not utf-8 text without control characters", name)
		}
		var err error
		switch name {
		case "subject":
			if value == "" {
				err = errors.New("it is empty; leave it out")
			}
		case "source":
			_, err = url.Parse(value)
		case "dataschema":
			if u, e := url.Parse(value); e != nil || !u.IsAbs() {
				err = fmt.Errorf("%q is no absolute URI", value)
			}
		case "time":
			_, err = parseTime(value)
		}
		if err != nil {
			return nil, eventErrorf("attribute %s: %v", name, err)
		}
		list = append(list, attribute{name, value})
	}
	return list, nil
}

func validAttributeName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && !isDigit(c) {
			return false
		}
	}
	return name != "" && name != "data"
}

// validText tells whether a value is a String of the CloudEvents type system.
func validText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r <= 0x9f || // control characters
			r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe // noncharacters
	})
}

// parseTime reads an RFC 3339 time; Go's own parser wants T and Z in upper case.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is no time as 2006-01-02T15:04:05Z (RFC 3339)", clip(s))
	}
	return t, nil
}
