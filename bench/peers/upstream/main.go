// Command upstream is the site behind a queue, as a server of its own.
//
//	upstream -listen 127.0.0.1:8000 -work 50ms
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/peers/site"
)

// Flags.
var (
	listen = flag.String("listen", "127.0.0.1:0", "serve at this `address`")
	_      = flag.String("admin", "", "ignored")
	work   = flag.Duration("work", 0, "how long a request takes, without any use of the processor")
)

func main() {
	flag.Parse()
	server := &http.Server{Addr: *listen, Handler: &site.Site{Work: *work}, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
	os.Exit(1)
}
