package access

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"

	"github.com/managemyclaw/hardshell/composio"
)

// piece is how many characters of a known credential, in a row, give it away.
const piece = 12

// pieces finds pieces of credentials that are known, however they are written.
type pieces struct {
	windows map[[piece]byte]bool
	first   [1 << 16]bool // by a hash of the first four bytes
}

// newPieces returns nil if there are none.
func newPieces(secrets []composio.Secret) *pieces {
	var p *pieces
	for _, s := range secrets {
		v := s.Reveal()
		if v == "" {
			continue
		}
		if p == nil {
			p = &pieces{windows: make(map[[piece]byte]bool)}
		}
		backwards := []byte(v)
		slices.Reverse(backwards)
		for _, form := range []string{
			v, string(backwards), strings.ToUpper(v), strings.ToLower(v), url.QueryEscape(v),
			hex.EncodeToString([]byte(v)), strings.ToUpper(hex.EncodeToString([]byte(v))),
		} {
			p.add(form)
		}
		// In base64 the same text is written in three ways, by where in a
		// group of three bytes it begins. The ends depend on what is beside.
		for lead := range 3 {
			text := append(make([]byte, lead), v...)
			for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				form := enc.EncodeToString(text)
				from, to := 0, len(form)
				if lead > 0 {
					from = lead + 1
				}
				if len(text)%3 != 0 {
					to--
				}
				p.add(form[min(from, to):to])
			}
		}
	}
	return p
}

// add adds what of a form gives it away. Of one that is short that is all of it
// and what it is padded with, which is to say nothing.
func (p *pieces) add(form string) {
	for i := 0; i+piece <= len(form); i++ {
		w := [piece]byte([]byte(form[i : i+piece]))
		p.windows[w] = true
		p.first[hash4(w[:])] = true
	}
}

func hash4(b []byte) uint16 {
	v := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	return uint16((v * 2654435761) >> 16)
}

func (p *pieces) find(text []byte) []Match {
	if p == nil {
		return nil
	}
	var all []Match
	for i := 0; i+piece <= len(text); i++ {
		if !p.first[hash4(text[i:])] || !p.windows[[piece]byte(text[i:i+piece])] {
			continue
		}
		if n := len(all); n > 0 && i <= all[n-1].End {
			all[n-1].End = i + piece
		} else {
			all = append(all, Match{RuleKnown, i, i + piece})
		}
	}
	return all
}
