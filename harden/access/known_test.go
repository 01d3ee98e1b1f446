package access_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/managemyclaw/hardshell/harden/access"
)

// A credential that is known is found however it is written, and so is a piece
// of it.
func TestKnownCredentials(t *testing.T) {
	const secret = "correct-horse-battery-staple/with+odd=chars"
	backwards := []byte(secret)
	slices.Reverse(backwards)
	cfg := access.Config{Known: access.Secrets(secret, "")}
	for name, text := range map[string]string{
		"as it is":               secret,
		"first half":             secret[:len(secret)/2],
		"second half":            secret[len(secret)/2:],
		"twelve characters":      secret[7:19],
		"backwards":              string(backwards),
		"in upper case":          strings.ToUpper(secret),
		"in base64":              base64.StdEncoding.EncodeToString([]byte(secret)),
		"in base64 after one":    base64.StdEncoding.EncodeToString([]byte("x" + secret)),
		"in base64 after two":    base64.RawURLEncoding.EncodeToString([]byte("xy" + secret + "z")),
		"in hexadecimal digits":  hex.EncodeToString([]byte(secret)),
		"in the middle of words": "aaaa" + secret + "bbbb",
	} {
		t.Run(name, func(t *testing.T) {
			found, err := access.Find(cfg, []byte("some text\n"+text+"\nand more"))
			if err != nil || len(found) == 0 || found[0].Rule != access.RuleKnown {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
	if found, err := access.Find(cfg, []byte("correct-hors, attery-stapl, and zero bytes: "+strings.Repeat("\x00", 64)+strings.Repeat("A", 64))); err != nil || len(found) > 0 && found[0].Rule == access.RuleKnown && found[0].Start > 12 {
		t.Errorf("%+v, %v", found, err)
	}
	if found, err := access.Find(cfg, []byte("correct-hor e-battery-s")); err != nil || len(found) > 0 {
		t.Errorf("eleven characters: %+v, %v", found, err)
	}
}

// The agent's token is its own; all others are credentials.
func TestTokensOfTheGateway(t *testing.T) {
	cfg := access.Config{Tokens: [][sha256.Size]byte{sha256.Sum256([]byte(agentToken))}}
	for _, text := range []string{"x-api-key: " + agentToken, "Authorization: Bearer " + agentToken, "https://gateway/mcp?key=" + agentToken, `{"x-api-key":"` + agentToken + `"}`} {
		if found, err := access.Find(cfg, []byte(text)); err != nil || len(found) > 0 {
			t.Errorf("%q: %+v, %v", text, found, err)
		}
	}
	other := agentToken[:len(agentToken)-1] + "d"
	if found, _ := access.Find(cfg, []byte("x-api-key: "+other)); len(found) == 0 {
		t.Error("the token of another agent is taken for its own")
	}
	if found, _ := access.Find(cfg, []byte(agentToken+" "+projectKey)); len(found) != 1 || found[0].Rule != access.RuleComposioKey {
		t.Errorf("what is beside its token: %+v", found)
	}
}
