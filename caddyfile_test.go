package osmosis

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var updateAdapt = flag.Bool("update", false, "rewrite the second halves of testdata/adapt/*.caddyfiletest")

// dashes stand between the two halves of a golden file.
const dashes = "\n----------\n"

// adapt gives what a Caddyfile becomes: JSON, indented, or the text of the error.
func adapt(t *testing.T, input string) (output string, err error) {
	t.Helper()
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	for _, warning := range warnings {
		t.Errorf("warning: %s", warning)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, config, "", "\t"); err != nil {
		t.Fatalf("indent %s: %v", config, err)
	}
	return indented.String(), nil
}

// TestAdapt compares each golden file's Caddyfile with its second half.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, found := strings.Cut(strings.ReplaceAll(string(golden), "\r\n", "\n"), dashes)
			if !found {
				t.Fatalf("%s has no line of ten dashes", file)
			}
			got, err := adapt(t, input+"\n")
			if err != nil {
				got = err.Error()
			}
			got = strings.ReplaceAll(got, `.\\Caddyfile`, "./Caddyfile") // what file_server hides, on Windows
			if *updateAdapt {
				if err := os.WriteFile(file, []byte(input+dashes+got+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want = strings.TrimSuffix(want, "\n"); got != want {
				t.Errorf("adapted to\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestAdaptedFields decodes what the good golden files became into the structs,
// unknown fields refused, as Caddy does when it loads them.
func TestAdaptedFields(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, output, _ := strings.Cut(string(golden), dashes)
		if !strings.HasPrefix(output, "{") {
			continue
		}
		var config struct {
			Apps struct {
				Osmosis json.RawMessage
				HTTP    any
			}
		}
		if err := json.Unmarshal([]byte(output), &config); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if raw := config.Apps.Osmosis; raw != nil {
			if err := caddy.StrictUnmarshalJSON(raw, new(App)); err != nil {
				t.Errorf("%s: app: %v", file, err)
			}
		}
		for _, handler := range handlersIn(config.Apps.HTTP) {
			var into any
			switch handler["handler"] {
			case "osmosis":
				into = new(Handler)
			case "osmosis_streams":
				into = new(StreamsHandler)
			default:
				continue
			}
			delete(handler, "handler")
			raw, err := json.Marshal(handler)
			if err != nil {
				t.Fatal(err)
			}
			if err := caddy.StrictUnmarshalJSON(raw, into); err != nil {
				t.Errorf("%s: %s: %v", file, raw, err)
			}
		}
	}
}

// handlersIn collects the HTTP handlers anywhere in decoded JSON.
func handlersIn(value any) (handlers []map[string]any) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			handlers = append(handlers, handlersIn(element)...)
		}
	case map[string]any:
		if _, ok := value["handler"].(string); ok {
			handlers = append(handlers, value)
		}
		for _, element := range value {
			handlers = append(handlers, handlersIn(element)...)
		}
	}
	return handlers
}

// TestStreamRouteComesFirst adapts a site with more routes than Caddy's sort
// takes in one go, their matchers such that it compares some as equal and some
// by length. Wherever they end up, the stream route is in front of them all.
func TestStreamRouteComesFirst(t *testing.T) {
	matchers := []string{"", "* ", "@write ", "@two ", "/* ", "/-/a* ", "/-/stream* ", "/-/streams/* ", "/-/streams/longer/than/the/stream/route* "}
	for first := range matchers {
		for step := 1; step < len(matchers); step++ {
			var site strings.Builder
			site.WriteString("localhost {\n\t@write method POST\n\t@two path /-/* /a*\n")
			for i := range 60 {
				fmt.Fprintf(&site, "\tosmosis %stopic%d\n", matchers[(first+i*step)%len(matchers)], i)
				fmt.Fprintf(&site, "\theader /a%d* A b\n", i)
			}
			site.WriteString("}\n")
			output, err := adapt(t, site.String())
			if err != nil {
				t.Fatal(err)
			}
			stream := strings.Index(output, `"handler": "osmosis_streams"`)
			queue := strings.Index(output, `"handler": "osmosis",`)
			if stream < 0 || queue < 0 || stream > queue {
				t.Fatalf("the stream route is at %d and the first queue at %d of\n%s", stream, queue, output)
			}
			if n := strings.Count(output, "osmosis_streams"); n != 1 {
				t.Fatalf("%d stream routes, want 1", n)
			}
		}
	}
}

// TestStreamURLsMatch checks what the stream route takes, for paths that a
// client may send.
func TestStreamURLsMatch(t *testing.T) {
	paths := caddyhttp.MatchPath{defaultStreams, defaultStreams + "/*"}
	if err := paths.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/-/streams/AbC":        true,
		"/-/streams/AbC/result": true,
		"/-/streams/":           true,
		"/-/streams":            true,
		"/-/streamsx":           false,
		"/-/stream":             false,
		"/":                     false,
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
		if got, err := paths.MatchWithError(r); err != nil || got != want {
			t.Errorf("%s: %t, %v; want %t", path, got, err, want)
		}
	}
}

// TestSiteIsTold fails when Caddy renames the field that tells sites apart; see siteOf.
func TestSiteIsTold(t *testing.T) {
	output, err := adapt(t, "localhost {\n\tosmosis a\n\tosmosis b\n}\n\nexample.com {\n\tosmosis c\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(output, "osmosis_streams"); n != 2 {
		t.Errorf("%d stream routes for two sites, want 2", n)
	}
}

// FuzzCaddyfile reads arbitrary text as the inside of every block there is. It
// must give a configuration or an error, and the configuration must be one that
// the structs take.
func FuzzCaddyfile(f *testing.F) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		golden, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		input, _, _ := strings.Cut(string(golden), dashes)
		for block := range strings.SplitSeq(input, "osmosis") {
			f.Add(strings.TrimSpace(block))
		}
	}
	f.Add("key \"\n\" {\n\t}\n")
	f.Add("cors {\n}\nscale a b {\nprocess {\n")
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte("osmosis "+text), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		for _, target := range []caddyfile.Unmarshaler{new(App), new(Handler), new(StreamsHandler), new(Scale), new(ProcessScaler), new(DeliverScaler)} {
			err := target.UnmarshalCaddyfile(caddyfile.NewDispenser(slices.Clone(tokens)))
			if err != nil {
				continue
			}
			raw, err := json.Marshal(target)
			if err != nil {
				t.Errorf("%T: %v", target, err)
			}
			if err := caddy.StrictUnmarshalJSON(raw, target); err != nil {
				t.Errorf("%T from %s: %v", target, raw, err)
			}
		}
		// The whole way too, but only text that stays inside its block and
		// imports no files: other directives are not what is tried here.
		depth := 0
		for _, token := range tokens {
			switch token.Text {
			case "{":
				depth++
			case "}":
				depth--
			case "import":
				return
			}
			if depth < 0 {
				return
			}
		}
		for _, site := range []string{
			"{\n\tosmosis {\n%s\n\t}\n}\n",
			"localhost {\n\tosmosis topic {\n%s\n\t}\n}\n",
			"localhost {\n\tosmosis topic {\n\t\tscale {\n%s\n\t\t}\n\t}\n}\n",
			"localhost {\n\tosmosis_streams {\n%s\n\t}\n}\n",
		} {
			_, _, _ = caddyconfig.GetAdapter("caddyfile").Adapt(fmt.Appendf(nil, site, text), nil)
		}
	})
}
