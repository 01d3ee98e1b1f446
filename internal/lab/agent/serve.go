//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

func serve(args []string) {
	flags := flag.NewFlagSet("agent serve", flag.ExitOnError)
	bind := flags.String("bind", "lan", "`where` to listen: lan (all addresses) or loopback")
	port := flags.Int("port", 18789, "`port` to listen on")
	udp := flags.Bool("udp", false, "answer datagrams to the port with themselves too")
	picky := flags.Bool("picky", false, "refuse to start unless /tmp and a cache directory can be written")
	flags.Parse(args)
	if *picky {
		bePicky()
	}
	host := map[string]string{"lan": "", "loopback": "127.0.0.1"}
	if _, ok := host[*bind]; !ok || flags.NArg() > 0 {
		flags.Usage()
		os.Exit(2)
	}
	ln, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host[*bind], *port))
	if err != nil {
		fatal(1, err.Error())
	}
	if *udp {
		go echo(fmt.Sprintf("%s:%d", host[*bind], *port))
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	http.HandleFunc("/do", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(do(r.FormValue("verb"), r.Form["arg"]))
	})
	fmt.Println("listening on", ln.Addr())
	fatal(1, http.Serve(ln, nil).Error())
}

// bePicky needs what a real agent needs, and fails as unhelpfully.
func bePicky() {
	if err := os.MkdirAll("/tmp/agent-state-locks", 0o700); err != nil {
		fatal(1, err.Error())
	}
	var errs []error
	for _, dir := range []string{os.Getenv("XDG_CACHE_HOME"), filepath.Join(os.Getenv("HOME"), ".cache")} {
		if dir == "" {
			continue
		}
		err := os.MkdirAll(filepath.Join(dir, "agent"), 0o700)
		if err == nil {
			return
		}
		errs = append(errs, err)
	}
	fatal(78, "shared state database is unreadable\n"+errors.Join(errs...).Error())
}

// health is the HEALTHCHECK of the lab's images.
func health() {
	for _, file := range []string{"/tmp/unwell", "/state/unwell"} {
		if _, err := os.Stat(file); err == nil {
			fatal(1, file+" exists")
		}
	}
	client := &http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://127.0.0.1:18789/healthz")
	if err != nil {
		fatal(1, err.Error())
	}
	if resp.StatusCode != http.StatusOK {
		fatal(1, resp.Status)
	}
}
