package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Answer is what came of something the agent was told to do.
type Answer struct {
	// OK is true if it succeeded.
	OK bool
	// Error says why it did not, and Errno which error the kernel gave, such
	// as "EROFS", if it was the kernel's.
	Error, Errno string
	// Result depends on the verb.
	Result json.RawMessage
}

// String is for test logs.
func (a Answer) String() string {
	if a.OK {
		return "ok " + string(a.Result)
	}
	return strings.TrimSpace("refused: " + a.Error + " " + a.Errno)
}

// Do has the agent's program do something in a running container, by docker
// exec, so as the container's user. The error is nil if there is an answer,
// whatever it says. "agent verbs" lists what there is to do.
func (l *Lab) Do(ctx context.Context, container, verb string, args ...string) (Answer, error) {
	out, err := l.Docker(ctx, append([]string{"exec", container, "/agent", "do", verb}, args...)...)
	var a Answer
	if jsonErr := json.Unmarshal([]byte(out), &a); jsonErr != nil {
		if err == nil {
			err = jsonErr
		}
		return Answer{}, fmt.Errorf("lab: agent: do %s: %w", verb, err)
	}
	return a, nil
}

// Ask tells an agent that listens on addr (host:port) to do something. The
// error is nil if there is an answer, whatever it says. For a client on one of
// the lab's machines see [Machine.Client].
func Ask(ctx context.Context, client *http.Client, addr, verb string, args ...string) (Answer, error) {
	target := url.URL{Scheme: "http", Host: addr, Path: "/do", RawQuery: url.Values{"verb": {verb}, "arg": args}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), nil)
	if err != nil {
		return Answer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return Answer{}, err
	}
	var a Answer
	if err := json.Unmarshal(body, &a); err != nil {
		return Answer{}, fmt.Errorf("lab: agent: do %s: %s: %w", verb, resp.Status, err)
	}
	return a, nil
}
