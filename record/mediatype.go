package record

import (
	"fmt"
	"mime"
	"strings"
)

// maxMediaType bounds what is read as a media type. Reading a long one takes
// long, and the data of one reply may become an event for many clients.
const maxMediaType = 1024

// mediaType reads a media type with its parameters.
func mediaType(s string) (media string, params map[string]string, err error) {
	if len(s) > maxMediaType {
		return "", nil, fmt.Errorf("it is longer than %d bytes", maxMediaType)
	}
	media, params, err = mime.ParseMediaType(s)
	if err != nil {
		return "", nil, fmt.Errorf("read media type: %w", err)
	}
	return media, params, nil
}

// isJSON tells whether a media type is JSON: */json or */*+json. One that is
// longer than anybody writes is none.
func isJSON(contentType string) bool {
	if contentType == jsonType {
		return true
	}
	media, _, err := mediaType(contentType)
	return err == nil && (strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json"))
}
