package osmosis

import (
	"slices"
	"testing"
)

func TestValidOrigins(t *testing.T) {
	for origin, want := range map[string]bool{
		"*": true, "https://app.example.com": true, "HTTPS://App.Example.com/": true, "http://localhost:3000": true,
		"http://[::1]:3000": true, "capacitor://localhost": true, "https://xn--mnchen-3ya.example": true,
		"": false, "null": false, "app.example.com": false, "app.example.com:443": false, "https://": false, "https:///": false,
		"https://x/path": false, "https://x?": false, "https://x#": false, "https://ada@x": false, "https://x//": false,
		"https://*.example.com": false, "https://münchen.example": false, "https://x y": false, "{env.ORIGIN}": false,
		"https://x:443": false, "http://x:80": false, "http://x:443": true, "https://x:": false, "//x": false,
		"https://a.example,https://b.example": false,
	} {
		if err := validOrigins([]string{"https://fine.example", origin}); (err == nil) != want {
			t.Errorf("%q: %v", origin, err)
		}
	}
}

func TestUnheardOf(t *testing.T) {
	methods := []string{"POST", "GTE", "REPORT", "DELTE", "QUERY"}
	if got := unheardOf(methods); !slices.Equal(got, []string{"GTE", "DELTE"}) || len(methods) != 5 {
		t.Errorf("%v of %v", got, methods)
	}
}
