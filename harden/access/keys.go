package access

import (
	"bytes"
	"context"
	"iter"
	"regexp"
)

// Keys is the [Detector] of what this module knows itself: Composio's keys
// (ak_, uak_, oak_, ck_) under any name, the headers and variables that carry
// them, URLs of MCP servers with a key in them, OAuth tokens as OpenClaw stores
// them, OpenClaw's gateway tokens, tokens of this module's gateway, bearer
// headers and private keys. It sees through base64, hexadecimal digits,
// percent and backslash escapes and UTF-16, twice over. It is ready for use.
//
// It is no general detector: it does not know the credentials of other
// services.
type Keys struct{}

// Rules of [Keys].
const (
	RuleComposioKey   = "composio-key"     // begins as Composio's keys do
	RuleComposioField = "composio-field"   // is given as one: COMPOSIO_API_KEY, composio_token
	RuleKeyHeader     = "api-key-header"   // x-api-key and its kin, consumerKey
	RuleMCPURL        = "composio-mcp-url" // a URL that has a key in it
	RuleOAuthToken    = "oauth-token"      // a member such as "access_token"
	RuleGatewayToken  = "openclaw-token"   // OPENCLAW_GATEWAY_TOKEN or _PASSWORD
	RuleAgentToken    = "agent-token"      // of this module's gateway, and not the agent's
	RuleBearer        = "bearer-token"     // Authorization: Bearer …
	RulePrivateKey    = "private-key"      // PEM
	RuleKnown         = "known-credential" // in [Config.Known], whole or a piece
)

// A fieldRule is a credential that a name gives away.
type fieldRule struct {
	rule    string
	hints   []string // one of them is in every match
	pattern *regexp.Regexp
}

// gap is what may be between a name and its value: quotes (also escaped ones,
// of JSON within JSON), a colon or an equals sign.
const gap = `\\*["']?\s{0,4}[:=]\s{0,4}\\*["']?`

var fieldRules = []fieldRule{
	{
		RuleComposioField,
		[]string{"omposio", "OMPOSIO"},
		regexp.MustCompile(`(?i)composio[a-z_.-]{0,24}(?:key|token|secret)` + gap + `([^\s"'\\,;}]{8,})`),
	},
	{
		RuleKeyHeader,
		[]string{"api-key", "Api-Key", "API-KEY", "API-Key", "consumerKey"},
		regexp.MustCompile(`(?i)(?:x-(?:user-|org-|consumer-)?api-key|consumerKey)` + gap + `([^\s"'\\,;}]{8,})`),
	},
	{
		RuleMCPURL,
		[]string{"omposio", "OMPOSIO"},
		regexp.MustCompile(`(?i)https?://[^\s"'<>?#]*composio[^\s"'<>?#]*\?[^\s"'<>]*?(?:key|token|secret|code)=([^&\s"'<>\\]{6,})`),
	},
	{
		RuleMCPURL,
		[]string{"omposio", "OMPOSIO"},
		regexp.MustCompile(`(?i)https?://([^\s"'<>/@]{4,})@[^\s"'<>/]*composio`),
	},
	{
		RuleOAuthToken,
		[]string{"_token", "Token", "client_secret", "clientSecret"},
		regexp.MustCompile(`\\*["'](?:access_token|refresh_token|id_token|accessToken|refreshToken|idToken|client_secret|clientSecret)\\*["']\s{0,4}:\s{0,4}\\*["']([^\s"'\\]{8,})`),
	},
	{
		RuleGatewayToken,
		[]string{"OPENCLAW_"},
		regexp.MustCompile(`OPENCLAW_[A-Z_]*(?:TOKEN|PASSWORD)` + gap + `([^\s"'\\,;}]{8,})`),
	},
	{
		RuleBearer,
		[]string{"earer ", "EARER "},
		regexp.MustCompile(`(?i)\bbearer ([A-Za-z0-9._~+/=-]{16,})`),
	},
	{
		RulePrivateKey,
		[]string{"PRIVATE KEY-----"},
		regexp.MustCompile(`-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----(?:[^-]{16,})`),
	},
}

// Detect implements [Detector].
func (Keys) Detect(ctx context.Context, text []byte) ([]Match, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return allKeys(text), nil
}

// allKeys finds credentials, also those that are encoded.
func allKeys(text []byte) []Match {
	all := plainKeys(text)
	for _, d := range decodings(text, 2) {
		for _, m := range plainKeys(d.text) {
			all = append(all, Match{Rule: m.Rule, Start: d.start, End: d.end})
		}
	}
	return all
}

// plainKeys finds credentials that are not encoded.
func plainKeys(text []byte) []Match {
	var all []Match
	for start, end := range composioKeys(text) {
		all = append(all, Match{RuleComposioKey, start, end})
	}
	for start, end := range tokensIn(text) {
		all = append(all, Match{RuleAgentToken, start, end})
	}
	for _, r := range fieldRules {
		if !containsAny(text, r.hints) {
			continue
		}
		for _, m := range r.pattern.FindAllSubmatchIndex(text, -1) {
			start, end := m[0], m[1]
			if len(m) > 2 {
				start, end = m[2], m[3]
			}
			if !isPlaceholder(text[start:end]) {
				all = append(all, Match{r.rule, start, end})
			}
		}
	}
	return all
}

func containsAny(text []byte, hints []string) bool {
	for _, h := range hints {
		if bytes.Contains(text, []byte(h)) {
			return true
		}
	}
	return false
}

// isPlaceholder reports whether a value stands for one that is elsewhere, or
// that is masked.
func isPlaceholder(v []byte) bool {
	return bytes.HasPrefix(v, []byte("$")) || bytes.HasPrefix(v, []byte("<")) || bytes.HasPrefix(v, []byte("process.env")) ||
		bytes.Contains(v, []byte("REDACTED")) || bytes.HasSuffix(v, []byte("...")) && len(v) <= 7 || len(bytes.Trim(v, "*xX.•")) == 0
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// minKey is the least number of characters after the prefix of a key. Of a key
// that was cut in two, one half is longer.
const minKey = 10

// composioKeys yields where Composio's keys are: ak_, uak_, oak_ and ck_, in
// any case of their letters, not within a word, and followed by what no name
// would be.
func composioKeys(text []byte) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for at := 0; ; {
			i := bytes.IndexByte(text[at:], '_')
			if i < 0 {
				return
			}
			under := at + i
			at = under + 1
			start := under - 2
			if start < 0 || text[under-1]|0x20 != 'k' {
				continue
			}
			switch text[start] | 0x20 {
			case 'c':
			case 'a':
				if start > 0 && (text[start-1]|0x20 == 'u' || text[start-1]|0x20 == 'o') {
					start--
				}
			default:
				continue
			}
			if start > 0 && isWord(text[start-1]) {
				continue
			}
			end := at
			for end < len(text) && (isWord(text[end]) || text[end] == '-') {
				end++
			}
			if looksRandom(text[at:end]) {
				if !yield(start, end) {
					return
				}
				at = end
			}
		}
	}
}

// looksRandom reports whether what follows a prefix is a key's, and not the
// rest of a name such as "ck_editor_settings".
func looksRandom(s []byte) bool {
	var lower, upper, digits int
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'z':
			lower++
		case c >= 'A' && c <= 'Z':
			upper++
		}
	}
	return len(s) >= minKey && (digits > 0 && lower+upper > 0 || digits >= minKey || lower > 0 && upper > 0)
}

// tokenPrefix begins the tokens of this module's gateway.
const tokenPrefix = "hsg_"

// tokensIn yields where tokens of this module's gateway are.
func tokensIn(text []byte) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for at := 0; ; {
			i := bytes.Index(text[at:], []byte(tokenPrefix))
			if i < 0 {
				return
			}
			start := at + i
			end := start + len(tokenPrefix)
			for end < len(text) && (isWord(text[end]) || text[end] == '-') {
				end++
			}
			at = start + len(tokenPrefix)
			if end-start >= len(tokenPrefix)+minKey {
				if at = end; !yield(start, end) {
					return
				}
			}
		}
	}
}
