//go:build linux

package main

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

var toolVerbs = map[string]verb{
	"tool": {"GATEWAY TOKEN TOOL BODY: call a tool of Composio's through a gateway, and return the status", 4, func(args []string) (any, error) {
		return callTool(args)
	}},
	"wipe-start": {"GATEWAY TOKEN TOOL BODY: call a tool twenty times a second, whatever is answered; in the server only", 4, func(args []string) (any, error) {
		go wipe.run(args)
		return nil, nil
	}},
	"wipe-status": {": how many calls there were, by status; 0 is no answer", 0, func([]string) (any, error) {
		return wipe.counts(), nil
	}},
}

func callTool(args []string) (int, error) {
	url := strings.TrimSuffix(args[0], "/") + "/api/v3.1/tools/execute/" + args[2]
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(args[3]))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Api-Key", args[1])
	resp, err := (&http.Client{Timeout: dialTimeout}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, err
}

// wipe is what an agent does that deletes a mailbox and does not listen.
var wipe wiper

type wiper struct {
	mu     sync.Mutex
	status map[int]int
}

func (w *wiper) run(args []string) {
	for range time.Tick(50 * time.Millisecond) {
		status, _ := callTool(args)
		w.mu.Lock()
		if w.status == nil {
			w.status = make(map[int]int)
		}
		w.status[status]++
		w.mu.Unlock()
	}
}

func (w *wiper) counts() map[int]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.status)
}
