package deliver

import (
	"net/http"
	"slices"
	"testing"
)

// A client that reads an answer under its stream's URL is led where it would have
// been led by the answer to its request.
func TestPlace(t *testing.T) {
	for _, c := range []struct{ path, field, value, want string }{
		{"/shop/orders?x=1", "Location", "thanks", "/shop/thanks"},
		{"/shop/orders?x=1", "Location", "thanks.php?n=1#top", "/shop/thanks.php?n=1#top"},
		{"/shop/orders", "Location", "./", "/shop/"},
		{"/shop/orders", "Location", "..", "/"},
		{"/shop/orders?x=1", "Location", "?y=2", "/shop/orders?y=2"},
		{"/shop/orders?x=1", "Location", "", ""},
		{"/shop/a%2Fb/orders", "Location", "c%20d", "/shop/a%2Fb/c%20d"},
		{"/shop/orders", "Content-Location", "1", "/shop/1"},
		{"/shop/orders", "Location", "/elsewhere", "/elsewhere"},
		{"/shop/orders", "Location", "//other.example/x", "//other.example/x"},
		{"/shop/orders", "Location", "https://other.example/x", "https://other.example/x"},
		{"/shop/orders", "Location", "mailto:a@b.example", "mailto:a@b.example"},
		{"/shop/orders", "Location", "%zz", "%zz"},
		{"//other.example/orders", "Location", "x", "x"},
		{"orders", "Location", "x", "x"},

		{"/shop/orders?x=/a/", "Set-Cookie", "a=1", "a=1; Path=/shop"},
		{"/orders", "Set-Cookie", "a=1; HttpOnly", "a=1; HttpOnly; Path=/"},
		{"/shop/a%2Fb/orders", "Set-Cookie", "a=1", "a=1; Path=/shop/a%2Fb"},
		{"/shop;v=1/orders", "Set-Cookie", "a=1", "a=1; Path=/"},
		{"/shop/orders", "Set-Cookie", "a=1; path=/", "a=1; path=/"},
		{"/shop/orders", "Set-Cookie", "a=1; Path = /x ; Secure", "a=1; Path = /x ; Secure"},
		{"/shop/orders", "Set-Cookie", "path=/", "path=/; Path=/shop"},
		{"/shop/orders", "Set-Cookie", "a=1; Path=", "a=1; Path=; Path=/shop"},
		{"/shop/orders", "Set-Cookie", "a=1; Path=/x; Path", "a=1; Path=/x; Path; Path=/shop"},
		{"/shop/orders", "Set-Cookie", "a=1; Pathological=/x", "a=1; Pathological=/x; Path=/shop"},

		{"/shop/orders", "Link", "<next>; rel=next", "<next>; rel=next"},
	} {
		h := http.Header{c.field: {c.value}}
		place(h, c.path)
		if got := h[c.field]; !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: %s: %s became %q, want %q", c.path, c.field, c.value, got, c.want)
		}
	}
}
