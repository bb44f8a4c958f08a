package record

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func TestAppendForwarded(t *testing.T) {
	for _, tt := range []struct {
		in   Forwarded
		want string
	}{
		{Forwarded{"192.0.2.1", "https", "example.com"}, `for=192.0.2.1;proto=https;host=example.com`},
		{Forwarded{"2001:db8::1", "http", "example.com:80"}, `for="[2001:db8::1]";proto=http;host="example.com:80"`},
		{Forwarded{"2001:DB8:0::1", "", "[::1]:80"}, `for="[2001:db8::1]";host="[::1]:80"`},
		{Forwarded{"fe80::1%eth0", "", ""}, `for="[fe80::1]"`},
		{Forwarded{"::ffff:192.0.2.1", "", ""}, `for="[::ffff:192.0.2.1]"`},
		{Forwarded{"", "https", ""}, `for=unknown;proto=https`},
		{Forwarded{"@", "", ""}, `for=unknown`},
		{Forwarded{"192.0.2.1:80", "", ""}, `for=unknown`},
		{Forwarded{"192.0.2.1\r\nx", "", ""}, `for=unknown`},
		{Forwarded{"192.0.2.1", "", `a"b\c d`}, `for=192.0.2.1;host="a\"b\\c d"`},
		{Forwarded{"192.0.2.1", "ht\ntp", "a\x00"}, `for=192.0.2.1`},
		{Forwarded{"192.0.2.1", "", "a;for=203.0.113.1"}, `for=192.0.2.1;host="a;for=203.0.113.1"`},
	} {
		if got := string(appendForwarded(nil, tt.in)); got != tt.want {
			t.Errorf("%+v becomes %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestParseForwarded(t *testing.T) {
	for in, want := range map[string]Forwarded{
		`for=192.0.2.60;proto=http;by=203.0.113.43`: {"192.0.2.60", "http", ""},
		`For="[2001:db8:cafe::17]:4711"`:            {"2001:db8:cafe::17", "", ""},
		`for="192.0.2.43:47011", for=198.51.100.17`: {"192.0.2.43", "", ""},
		`for="_gazonk"`:          {"_gazonk", "", ""},
		`for=unknown;HOST="a:1"`: {"unknown", "", "a:1"},
		`for="unknown:_x"`:       {"unknown", "", ""},
		` proto=https ; host="a\"b\\c" ,for=1.2.3.4;proto=http;by=_x`: {"", "https", `a"b\c`},
		`host=""`:              {"", "", ""},
		`host="a;b,c=d"`:       {"", "", "a;b,c=d"},
		`secret=x;for=1.2.3.4`: {"1.2.3.4", "", ""},
	} {
		if got, err := ParseForwarded(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", " ", "for", "=", "for=", "=x", "for=1.2.3.4;", "for=1.2.3.4,", "for=1.2.3.4;;proto=a", `for="1.2.3.4`, `for="1.2.3.4\`,
		"for=[::1]", `for="[::1"`, `for="::1"`, `for="[1.2.3.4]"`, `for="[::1]x"`, `for="[::1%25eth0]"`, "for=example.com", `for=""`,
		"for=1.2.3.4;for=1.2.3.5", "for=1.2.3.4 proto=a", "for =1.2.3.4", "host=a/b", "host=\"a\nb\"", "for=1.2.3.4, x",
	} {
		if got, err := ParseForwarded(in); !errors.Is(err, ErrForwarded) {
			t.Errorf("%q: %+v, %v; want ErrForwarded", in, got, err)
		}
	}
}

func FuzzParseForwarded(f *testing.F) {
	f.Add(`for="[2001:db8::1]:80";proto=https;host="a\"b", for=unknown`)
	f.Add("for=1.2.3.4\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseForwarded(s)
		if err != nil {
			if !errors.Is(err, ErrForwarded) {
				t.Errorf("error %v is not ErrForwarded", err)
			}
			return
		}
		for _, v := range []string{got.For, got.Proto, got.Host} {
			if !httpguts.ValidHeaderFieldValue(v) {
				t.Errorf("%q gives %q", s, v)
			}
		}
	})
}

// What is written is read, whatever the client, the scheme and the host are.
func FuzzForwarded(f *testing.F) {
	f.Add("2001:db8::1", "https", "example.com:8443")
	f.Add("1.2.3.4", "a\"", "\\\xff")
	f.Add("fe80::1%\"", "", "\r\n")
	f.Fuzz(func(t *testing.T, addr, proto, host string) {
		field := string(appendForwarded(nil, Forwarded{For: addr, Proto: proto, Host: host}))
		got, err := ParseForwarded(field)
		if err != nil {
			t.Fatalf("%q of %q, %q, %q: %v", field, addr, proto, host, err)
		}
		want := Forwarded{For: "unknown", Proto: proto, Host: host}
		if ip, err := netip.ParseAddr(addr); err == nil {
			want.For = ip.WithZone("").String()
		}
		if !httpguts.ValidHeaderFieldValue(proto) {
			want.Proto = ""
		}
		if !httpguts.ValidHeaderFieldValue(host) {
			want.Host = ""
		}
		if got != want {
			t.Errorf("%q reads as %+v, want %+v", field, got, want)
		}
		if strings.ContainsAny(field, "\r\n\x00") {
			t.Errorf("%q holds control characters", field)
		}
	})
}
