package access_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/managemyclaw/hardshell/harden/access"
	"github.com/managemyclaw/hardshell/harden/access/gitleaks"
)

// Credentials of no one.
const (
	projectKey  = "ak_7Qw2Zr9Xc4Vb6Nm1Lk3Jh"
	consumerKey = "ck_p8Yt5Re3Wq1As7Df9Gh2J"
	agentToken  = "hsg_M3k9Qx7Zp1Lw5Ty8Rv2Nc4Bd6Fg0Hj_KsUaEiOmPzX1"
	oauthToken  = "ya29.a0AfH6SMBx-Tz7Kq3Vw9Yr5Jn1Lc8Pd2Gh4Fs6"
)

func utf16LE(s string) string {
	var b bytes.Buffer
	for _, u := range utf16.Encode([]rune(s)) {
		b.WriteByte(byte(u))
		b.WriteByte(byte(u >> 8))
	}
	return b.String()
}

// keyCases are texts with a credential, by situation, and the rule that finds
// it.
var keyCases = map[string]struct{ text, rule string }{
	"a project's key":                      {"key: " + projectKey, access.RuleComposioKey},
	"a user's key":                         {"u" + projectKey, access.RuleComposioKey},
	"an organization's key":                {"o" + projectKey, access.RuleComposioKey},
	"a consumer's key":                     {consumerKey, access.RuleComposioKey},
	"half of a key":                        {consumerKey[:len(consumerKey)/2+4], access.RuleComposioKey},
	"in upper case":                        {strings.ToUpper(projectKey), access.RuleComposioKey},
	"in a comment":                         {"// old: " + consumerKey + "\n{}", access.RuleComposioKey},
	"in base64":                            {base64.StdEncoding.EncodeToString([]byte("k=" + projectKey)), access.RuleComposioKey},
	"in base64 for URLs":                   {base64.RawURLEncoding.EncodeToString([]byte("??>" + projectKey)), access.RuleComposioKey},
	"in base64 after a path":               {"/x/" + base64.StdEncoding.EncodeToString([]byte(projectKey)), access.RuleComposioKey},
	"in base64 twice":                      {base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(projectKey)))), access.RuleComposioKey},
	"in hexadecimal digits":                {hex.EncodeToString([]byte(projectKey)), access.RuleComposioKey},
	"in hexadecimal digits after a digit":  {"a" + hex.EncodeToString([]byte(projectKey)), access.RuleComposioKey},
	"with percent escapes":                 {url.QueryEscape("a=") + "%63k_" + consumerKey[3:], access.RuleComposioKey},
	"with backslash escapes":               {`"\u0063k\x5f` + consumerKey[3:] + `"`, access.RuleComposioKey},
	"in UTF-16":                            {utf16LE("key=" + projectKey), access.RuleComposioKey},
	"a variable with another kind of key":  {"COMPOSIO_API_KEY=0123456789abcdef", access.RuleComposioField},
	"a member of JSON within JSON":         {`{\"composio_api_key\":\"0123456789abcdef\"}`, access.RuleComposioField},
	"a header":                             {"X-Consumer-API-Key: abcdefgh12345678", access.RuleKeyHeader},
	"a member with the name of a header":   {`"x-api-key": "abcdefgh12345678"`, access.RuleKeyHeader},
	"the plugin's setting":                 {`consumerKey: 'abcdefgh12345678'`, access.RuleKeyHeader},
	"the query of a server's URL":          {"https://mcp.composio.dev/x?user_id=a&api_key=abcdef12", access.RuleMCPURL},
	"the user of a server's URL":           {"https://abcdef12@connect.composio.dev/mcp", access.RuleMCPURL},
	"an OAuth token as OpenClaw stores it": {`{"tokens":{"access_token":"` + oauthToken + `"}}`, access.RuleOAuthToken},
	"an OAuth token in a database's text":  {"\x00\x17" + `{\"refreshToken\":\"1//0abcdefgh\"}` + "\x00", access.RuleOAuthToken},
	"OpenClaw's own token":                 {"OPENCLAW_GATEWAY_TOKEN=0123456789abcdef", access.RuleGatewayToken},
	"a token of the gateway":               {"x-api-key: " + agentToken, access.RuleAgentToken},
	"a bearer header":                      {"authorization: bearer abcdefghijklmnop", access.RuleBearer},
	"a private key":                        {"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n", access.RulePrivateKey},
}

func TestKeysFindsWhatItKnows(t *testing.T) {
	for name, c := range keyCases {
		t.Run(name, func(t *testing.T) {
			for _, around := range []string{"%s", "a\nb %s\nc", "\xff\xfe\x00 %s \x01"} {
				text := fmt.Appendf(nil, around, c.text)
				found, err := access.Keys{}.Detect(t.Context(), bytes.Clone(text))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(found, func(m access.Match) bool {
					return m.Rule == c.rule && m.Start >= 0 && m.Start < m.End && m.End <= len(text)
				}) {
					t.Errorf("%q: %+v", around, found)
				}
			}
		})
	}
}

func TestKeysLeavesOthersAlone(t *testing.T) {
	for name, text := range map[string]string{
		"a name that begins alike":   "ck_editor_settings back_to_the_future stack_overflow_error ak_some_identifier_in_code",
		"a variable in its place":    `"x-consumer-api-key": "${COMPOSIO_CONSUMER_KEY}"`,
		"a masked key":               `"x-api-key": "ak_7..." "access_token":"REDACTED" COMPOSIO_API_KEY=********`,
		"a count of tokens":          `"maxTokens": 8192, "access_token_lifetime": 3600`,
		"a public key":               "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
		"a hash":                     "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		"an address without a key":   "https://connect.composio.dev/mcp?toolkit=gmail",
		"code that reads a variable": "headers['x-api-key'] = process.env.KEY",
		"words":                      strings.Repeat("The quick brown fox jumps over the lazy dog. ", 50),
	} {
		t.Run(name, func(t *testing.T) {
			if found, err := (access.Keys{}).Detect(t.Context(), []byte(text)); err != nil || len(found) > 0 {
				for _, m := range found {
					t.Errorf("%s: %q", m.Rule, text[m.Start:m.End])
				}
			}
		})
	}
}

// A key is found wherever it begins and whatever is around it, unless that
// makes it part of a longer word.
func FuzzKeys(f *testing.F) {
	f.Add("", "")
	f.Add("aGVsbG8", "=\n")
	f.Add("\\u00", "%")
	f.Add("k\x00_\x00", "hsg_")
	f.Fuzz(func(t *testing.T, before, after string) {
		text := []byte(before + " " + projectKey + " " + after)
		kept := bytes.Clone(text)
		found, err := access.Keys{}.Detect(context.Background(), text)
		if err != nil || !bytes.Equal(text, kept) {
			t.Fatal("it fails, or changes the text", err)
		}
		start := len(before) + 1
		hit := false
		for _, m := range found {
			if m.Start < 0 || m.End > len(text) || m.Start >= m.End {
				t.Fatalf("a match that no text has: %+v", m)
			}
			hit = hit || m.Rule == access.RuleComposioKey && m.Start == start && m.End == start+len(projectKey)
		}
		if !hit {
			t.Fatalf("not found in %q: %+v", text, found)
		}
	})
}

func TestGitleaks(t *testing.T) {
	// What it is told by the environment and by files must not matter.
	t.Setenv("GITLEAKS_CONFIG", "/nonexistent")
	t.Setenv("GITLEAKS_CONFIG_TOML", "title='none'")
	t.Setenv("HOME", "/nonexistent")
	d, err := gitleaks.New()
	if err != nil {
		t.Fatal(err)
	}
	github := "ghp_" + "kR8vT2xW5yZ1aB4cD7eF0gH3jK6lM9nP2qS5"
	for name, text := range map[string]string{
		"as it is":              "token = " + github,
		"told to look away":     "token = " + github + " # gitleaks:allow",
		"in base64":             "x: " + base64.StdEncoding.EncodeToString([]byte("token = "+github)),
		"on a later line":       "a\n\n\nGITHUB=" + github + "\nb",
		"beside what is binary": "\xff\x00\x01 " + github + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			found, err := d.Detect(t.Context(), []byte(text))
			if err != nil || len(found) == 0 || !strings.Contains(found[0].Rule, "github") {
				t.Fatalf("%+v, %v", found, err)
			}
			m := found[0]
			if m.Start < 0 || m.Start >= m.End || m.End > len(text) || !strings.Contains(text[m.Start:m.End], github) && name != "in base64" {
				t.Errorf("%+v is %q", m, text[m.Start:m.End])
			}
		})
	}
	if found, err := d.Detect(t.Context(), []byte(strings.Repeat("The quick brown fox. ", 100))); err != nil || len(found) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Detect(ctx, []byte(github)); err == nil {
		t.Error("it was cut off, and says that it found nothing")
	}
}
