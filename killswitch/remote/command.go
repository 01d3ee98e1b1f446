package remote

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// An Action is what a command asks for. There is none that releases an agent.
type Action string

// The actions.
const (
	Kill   Action = "kill"   // fire the switch
	Status Action = "status" // say how things are
	Renew  Action = "renew"  // renew the lease of a dead-man switch
)

func (a Action) valid() bool { return a == Kill || a == Status || a == Renew }

// Bounds of a command.
const (
	// MaxLifetime is the longest time from issue to expiry that a server
	// accepts.
	MaxLifetime = 5 * time.Minute

	// MaxCommand is the size of the largest command, in bytes.
	MaxCommand = 2048

	maxName   = 128 // bytes
	maxReason = 512 // bytes
)

// A Command is an order to a switch. Signed, it is text: a line for what it
// is, one for each field in this order, and one for the signature. Every line
// ends with a newline; there is one way to write a command, and what is written
// another way is refused.
//
//	hardshell.killswitch.command/v1
//	action kill
//	switch prod-1
//	agent openclaw
//	key 7f0c…          the first 16 bytes of the SHA-256 of the public key, in hexadecimal digits
//	issued 1795373389123    milliseconds since 1970
//	expires 1795373449123
//	nonce 91ab…        16 random bytes, in hexadecimal digits
//	challenge -        or what the server gave
//	reason "it deletes mail"    quoted as Go does, in ASCII
//	signature mDk…     Ed25519 of all lines above, in base64
//
// The first line keeps a signature from meaning anything elsewhere. A command
// is bound to a switch by its name, and not by a key of the server's: a server
// that has lost its key can still be told to fire.
type Command struct {
	Action Action
	Switch string // the name of the switch, such as that of its machine
	Agent  string // the agent that it stops

	// Issued and Expires bound when it can be used, to the millisecond.
	Issued, Expires time.Time

	// Nonce tells commands apart. Sign fills one that is zero.
	Nonce [16]byte

	// Challenge, if not empty, is what the server gave. It shows that the
	// command is fresh, whatever the clocks say.
	Challenge string

	Reason string
}

const commandHeader = "hardshell.killswitch.command/v1\n"

// A signed command, taken apart. Nothing in it is true before verify says so.
type signed struct {
	Command
	key       keyID
	text      []byte // what is signed
	signature []byte
}

// Sign returns the command as text, signed by an operator's key. It returns an
// error if a field is out of bounds.
func (c Command) Sign(k *Key) ([]byte, error) {
	if !k.usable() {
		return nil, fmt.Errorf("%w: sign: the key is empty", ErrKey)
	}
	if c.Nonce == [16]byte{} {
		_, _ = rand.Read(c.Nonce[:]) // never fails
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	text := c.encode(k.Public().id())
	return append(text, "signature "+base64.StdEncoding.EncodeToString(k.sign(text))+"\n"...), nil
}

func (c *Command) validate() error {
	switch {
	case !c.Action.valid():
		return fmt.Errorf("remote: command: unknown action %q", c.Action)
	case !validName(c.Switch):
		return errors.New("remote: command: the name of the switch must be 1 to 128 printable ASCII characters without spaces")
	case !validName(c.Agent):
		return errors.New("remote: command: the name of the agent must be 1 to 128 printable ASCII characters without spaces")
	case c.Issued.UnixMilli() < 0 || c.Expires.UnixMilli() <= c.Issued.UnixMilli() || c.Expires.UnixMilli()-c.Issued.UnixMilli() > MaxLifetime.Milliseconds():
		return fmt.Errorf("remote: command: it must expire after it was issued, and within %v", MaxLifetime)
	case c.Challenge != "" && (c.Challenge == "-" || !validName(c.Challenge)):
		return errors.New("remote: command: the challenge is not one")
	case len(c.Reason) > maxReason || !utf8.ValidString(c.Reason):
		return fmt.Errorf("remote: command: the reason must be UTF-8 and at most %d bytes long", maxReason)
	case len(strconv.QuoteToASCII(c.Reason)) > maxReason*5/2:
		return errors.New("remote: command: the reason has too many characters that are not ASCII")
	}
	return nil
}

// validName reports whether a name can stand in a line.
func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (c *Command) encode(key keyID) []byte {
	b := make([]byte, 0, 512)
	challenge := c.Challenge
	if challenge == "" {
		challenge = "-"
	}
	return fmt.Appendf(b, commandHeader+"action %s\nswitch %s\nagent %s\nkey %s\nissued %d\nexpires %d\nnonce %x\nchallenge %s\nreason %s\n",
		c.Action, c.Switch, c.Agent, key, c.Issued.UnixMilli(), c.Expires.UnixMilli(), c.Nonce, challenge, strconv.QuoteToASCII(c.Reason))
}

var errMalformed = errors.New("remote: it is not a command")

// parseCommand takes a command apart. It verifies nothing.
func parseCommand(data []byte) (signed, error) {
	var s signed
	if len(data) > MaxCommand {
		return s, errMalformed
	}
	rest, ok := bytes.CutPrefix(data, []byte(commandHeader))
	if !ok {
		return s, errMalformed
	}
	var bad bool
	field := func(name string) string {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		value, is := bytes.CutPrefix(line, []byte(name+" "))
		bad = bad || !ok || !is
		rest = after
		return string(value)
	}
	fixed := func(dst []byte, digits string) {
		n, err := hex.Decode(dst, []byte(digits[:min(len(digits), 2*len(dst))]))
		bad = bad || err != nil || n != len(dst)
	}
	moment := func(digits string) time.Time {
		ms, err := strconv.ParseInt(digits, 10, 64)
		bad = bad || err != nil || ms < 0 || ms > 1<<50
		return time.UnixMilli(ms)
	}
	s.Action = Action(field("action"))
	s.Switch, s.Agent = field("switch"), field("agent")
	fixed(s.key[:], field("key"))
	s.Issued, s.Expires = moment(field("issued")), moment(field("expires"))
	fixed(s.Nonce[:], field("nonce"))
	if s.Challenge = field("challenge"); s.Challenge == "-" {
		s.Challenge = ""
	}
	reason, err := strconv.Unquote(field("reason"))
	bad = bad || err != nil
	s.Reason = reason
	s.text = data[:len(data)-len(rest)]
	s.signature, err = base64.StdEncoding.Strict().DecodeString(field("signature"))
	if bad || err != nil || len(rest) != 0 || len(s.signature) != ed25519.SignatureSize || s.validate() != nil || !bytes.Equal(s.encode(s.key), s.text) {
		return signed{}, errMalformed
	}
	// The decoder passes over newlines, of which a line has none, and nothing
	// else: but one way to write it is one way to write it.
	if want := "signature " + base64.StdEncoding.EncodeToString(s.signature) + "\n"; string(data[len(s.text):]) != want {
		return signed{}, errMalformed
	}
	return s, nil
}
