package access

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/managemyclaw/hardshell/composio"
)

// Bounds on what a gateway is asked.
const (
	doorTimeout  = 10 * time.Second
	maxDoorBytes = 8 << 20
	maxDoorPages = 100
)

// A door asks a gateway as an agent does.
type door struct {
	base    string
	mcpPath string
	token   composio.Secret
	client  *http.Client
}

func newDoor(g *Gateway, token composio.Secret) (*door, error) {
	u, err := url.Parse(g.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, errors.New("access: Config.Gateway.URL must be of the form http://host:port") // not quoted: it may hold a credential
	}
	if token.IsZero() {
		return nil, errors.New("access: Config.Gateway.Probes: the token is empty")
	}
	d := &door{base: u.Scheme + "://" + u.Host, mcpPath: g.MCPPath, token: token}
	if d.mcpPath == "" {
		d.mcpPath = "/mcp"
	}
	d.client = &http.Client{
		Timeout:       doorTimeout,
		Transport:     &http.Transport{DialContext: g.Dial, DisableKeepAlives: true, Proxy: nil, TLSHandshakeTimeout: doorTimeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d, nil
}

// do sends one request with a token, or with none.
func (d *door) do(ctx context.Context, method, path, token, body string, header http.Header) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, strings.NewReader(body))
	if err != nil {
		return reply{}, errors.New("access: the request to the gateway cannot be made")
	}
	maps.Copy(req.Header, header)
	if token != "" {
		req.Header.Set("X-Api-Key", token)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDoorBytes+1))
	if err == nil && len(data) > maxDoorBytes {
		err = fmt.Errorf("the answer is larger than %d bytes", maxDoorBytes)
	}
	return reply{resp.StatusCode, resp.Header, data}, err
}

// A reply is what a gateway answered.
type reply struct {
	status int
	header http.Header
	body   []byte
}

func (d *door) post(ctx context.Context, path, body string) (status int, err error) {
	r, err := d.do(ctx, http.MethodPost, path, d.token.Reveal(), body, nil)
	return r.status, err
}

// without lists tools with another token, or none.
func (d *door) without(ctx context.Context, token string) (status int, err error) {
	r, err := d.do(ctx, http.MethodGet, "/api/v3.1/tools", token, "", nil)
	return r.status, err
}

// listREST lists all tools, page by page.
func (d *door) listREST(ctx context.Context) ([]string, error) {
	var slugs []string
	cursor := ""
	for range maxDoorPages {
		path := "/api/v3.1/tools?limit=1000"
		if cursor != "" {
			path += "&cursor=" + url.QueryEscape(cursor)
		}
		r, err := d.do(ctx, http.MethodGet, path, d.token.Reveal(), "", nil)
		if err != nil {
			return nil, err
		}
		if r.status != http.StatusOK {
			return nil, statusError(r.status)
		}
		var page struct {
			Items []struct {
				Slug string `json:"slug"`
			} `json:"items"`
			NextCursor *string `json:"next_cursor"`
			TotalItems *int    `json:"total_items"`
		}
		if err := json.Unmarshal(r.body, &page); err != nil || page.Items == nil {
			return nil, errors.New("the answer is not a list of tools")
		}
		for _, t := range page.Items {
			slugs = append(slugs, t.Slug)
		}
		if page.NextCursor == nil || *page.NextCursor == "" {
			if page.TotalItems != nil && *page.TotalItems != len(slugs) {
				return nil, fmt.Errorf("the list has %d tools, and says that it has %d", len(slugs), *page.TotalItems)
			}
			return slugs, nil
		}
		cursor = *page.NextCursor
	}
	return nil, fmt.Errorf("the list has more than %d pages", maxDoorPages)
}

func statusError(status int) error { return fmt.Errorf("the gateway answers HTTP %d", status) }

// An mcpClient speaks the little of MCP that it takes to list and call tools,
// over streamable HTTP (revision 2025-06-18 of the specification).
type mcpClient struct {
	*door
	session string
	version string
	next    int
}

const mcpVersion = "2025-06-18"

func (d *door) openMCP(ctx context.Context) (*mcpClient, error) {
	m := &mcpClient{door: d}
	var hello struct {
		Version string `json:"protocolVersion"`
	}
	params := map[string]any{"protocolVersion": mcpVersion, "capabilities": struct{}{}, "clientInfo": map[string]string{"name": "hardshell", "version": "1"}}
	if err := m.call(ctx, "initialize", params, &hello); err != nil {
		return nil, err
	}
	m.version = hello.Version
	if err := m.send(ctx, "notifications/initialized", nil, nil, nil); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *mcpClient) list(ctx context.Context) ([]string, error) {
	names := []string{}
	cursor := ""
	for range maxDoorPages {
		params := map[string]string{}
		if cursor != "" {
			params["cursor"] = cursor
		}
		var page struct {
			Tools []struct {
				Name string `json:"name"`
			} `json:"tools"`
			NextCursor string `json:"nextCursor"`
		}
		if err := m.call(ctx, "tools/list", params, &page); err != nil {
			return nil, err
		}
		for _, t := range page.Tools {
			names = append(names, t.Name)
		}
		if cursor = page.NextCursor; cursor == "" {
			return names, nil
		}
	}
	return nil, fmt.Errorf("the list has more than %d pages", maxDoorPages)
}

// refuses calls a tool that must be refused.
func (m *mcpClient) refuses(ctx context.Context, what, slug string) Refusal {
	var result struct {
		IsError bool `json:"isError"`
	}
	err := m.call(ctx, "tools/call", map[string]any{"name": slug, "arguments": struct{}{}}, &result)
	if rpc, ok := errors.AsType[*rpcError](err); ok {
		return Refusal{What: what, Refused: true, Answer: rpc.Error()}
	}
	if err != nil {
		return Refusal{What: what, Err: err}
	}
	return Refusal{What: what, Refused: result.IsError, Answer: fmt.Sprintf("a result with isError: %v", result.IsError)}
}

// An rpcError is an answer that says no. What else it says is not kept.
type rpcError struct{ Code int }

func (e *rpcError) Error() string { return "MCP error " + strconv.Itoa(e.Code) }

func (m *mcpClient) call(ctx context.Context, method string, params, result any) error {
	m.next++
	return m.send(ctx, method, &m.next, params, result)
}

// send sends a request, or a notification if id is nil.
func (m *mcpClient) send(ctx context.Context, method string, id *int, params, result any) error {
	body, err := json.Marshal(struct {
		RPC    string `json:"jsonrpc"`
		ID     *int   `json:"id,omitempty"`
		Method string `json:"method"`
		Params any    `json:"params,omitempty"`
	}{"2.0", id, method, params})
	if err != nil {
		return err
	}
	header := http.Header{"Accept": {"application/json, text/event-stream"}}
	if m.session != "" {
		header.Set("Mcp-Session-Id", m.session)
	}
	if m.version != "" {
		header.Set("Mcp-Protocol-Version", m.version)
	}
	r, err := m.do(ctx, http.MethodPost, m.mcpPath, m.token.Reveal(), string(body), header)
	if err != nil {
		return err
	}
	if s := r.header.Get("Mcp-Session-Id"); s != "" {
		m.session = s
	}
	switch {
	case id == nil && r.status/100 == 2:
		return nil
	case r.status != http.StatusOK:
		return statusError(r.status)
	}
	kind, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	messages := [][]byte{r.body}
	if kind == "text/event-stream" {
		messages = events(r.body)
	}
	for _, msg := range messages {
		var answer struct {
			ID     *int            `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  *rpcError       `json:"error"`
		}
		if json.Unmarshal(msg, &answer) != nil || answer.ID == nil || *answer.ID != *id {
			continue
		}
		if answer.Error != nil {
			return answer.Error
		}
		if json.Unmarshal(answer.Result, result) != nil {
			break
		}
		return nil
	}
	return errors.New("the answer is not one of MCP's")
}

// events returns the data of server-sent events.
func events(stream []byte) [][]byte {
	var all [][]byte
	var data []byte
	scan := bufio.NewScanner(bytes.NewReader(stream))
	scan.Buffer(nil, maxDoorBytes)
	for scan.Scan() {
		line := bytes.TrimSuffix(scan.Bytes(), []byte("\r"))
		if rest, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			data = append(append(data, bytes.TrimPrefix(rest, []byte(" "))...), '\n')
		} else if len(line) == 0 && data != nil {
			all, data = append(all, data), nil
		}
	}
	if data != nil {
		all = append(all, data)
	}
	return all
}
